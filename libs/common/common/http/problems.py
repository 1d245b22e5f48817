"""RFC 9457 problem documents for all errors. They never include input or exception text."""

import math
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Annotated, Any, Final, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

CONTENT_TYPE = "application/problem+json"
MAX_FIELD_ERRORS: Final = 20
_MANY_ERRORS: Final = 1000  # pydantic renders all errors or none, and a megabyte of unknown fields has 100,000

SUPPORTED_ENCODINGS: Final = frozenset({"identity", "gzip"})
"""What aiohttp decodes reliably. It refuses some others before the app runs, treats the rest as plain bytes, and does
not report a truncated `deflate` body: reading it waits until the deadline."""
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_MESSAGES_WITH_INPUT: Final = {  # messages that would otherwise include input
    "union_tag_invalid": "The tag is not one of those expected",
    "uuid_parsing": "Input should be a valid UUID",
    "url_parsing": "Input should be a valid URL",
}


_PHRASES: Final = {413: "Content Too Large", 414: "URI Too Long", 422: "Unprocessable Content"}
"""Names of RFC 9110 that Python has from 3.13 on."""


def reason_phrase(status: int) -> str:
    """Return the name of a status, on every Python the same."""
    return _PHRASES.get(status) or HTTPStatus(status).phrase


Location = Literal["body", "query", "path", "header"]


class FieldError(BaseModel):
    """One error in the request, and where it is."""

    location: Location
    field: Annotated[str, Field(description="Dotted path of the field; empty for the whole document.")]
    message: str


class ProblemDocument(BaseModel):
    """RFC 9457 problem details with the request id for support."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"additionalProperties": True})

    type: str = "about:blank"
    title: str
    status: int
    detail: str | None = None
    request_id: str | None = None
    errors: list[FieldError] = []


class Problem(Exception):
    """An error response. Raise it anywhere below a handler; the middleware renders it."""

    def __init__(
        self,
        status: int,
        detail: str | None = None,
        *,
        type: str = "about:blank",
        title: str | None = None,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail or title or reason_phrase(status))
        self.status = status
        self.headers = dict(headers or {})
        self.document = ProblemDocument(
            type=type,
            title=title or reason_phrase(status),
            status=status,
            detail=detail,
            errors=list(errors),
            **(extra or {}),
        )

    def response(self, request_id: str | None = None) -> web.Response:
        """Render as `application/problem+json`."""
        body = self.document.model_copy(update={"request_id": request_id})
        return web.Response(
            status=self.status,
            body=body.model_dump_json(exclude_none=True).encode(),
            headers={**self.headers, "Content-Type": CONTENT_TYPE},
        )


def retry_after(seconds: float) -> dict[str, str]:
    """Return the `Retry-After` header, rounded up and at least 1 s."""
    return {"Retry-After": str(max(1, math.ceil(seconds)))}


def unavailable(detail: str, retry_after_s: float) -> Problem:
    """Return the 503 of a service that is full or that lacks a store it needs."""
    return Problem(503, detail, headers=retry_after(retry_after_s))


def unsupported_encoding(coding: str, detail: str) -> Problem:
    """Return a 415 that names the supported coding (RFC 9110, 12.5.3), so it is not about the media type."""
    return Problem(415, detail, headers={"Accept-Encoding": coding})


def check_content_encoding(coding: str | None) -> None:
    """Raise Problem 415 for a Content-Encoding that no service decodes."""
    if coding is not None and coding.lower() not in SUPPORTED_ENCODINGS:
        raise unsupported_encoding("gzip", "Content-Encoding can only be gzip. Omit it for uncompressed bodies.")


def field_errors(error: ValidationError, location: Location) -> list[FieldError]:
    """Return at most MAX_FIELD_ERRORS invalid fields, without their values, which can be secret.

    Raises Problem 400 with the reason of the parser if the body is not JSON.
    """
    if error.error_count() > _MANY_ERRORS:
        return [FieldError(location=location, field="", message=f"More than {_MANY_ERRORS} fields are not valid")]
    details = error.errors(include_url=False, include_input=False)
    if details[0]["type"] == "json_invalid":
        raise Problem(400, f"The body is not valid JSON: {details[0]['ctx']['error']}.") from None
    return [
        FieldError(
            location=location,
            field=".".join(_name(part) for part in item["loc"]),
            message=_MESSAGES_WITH_INPUT.get(item["type"], item["msg"]),
        )
        for item in details[:MAX_FIELD_ERRORS]
    ]


def _name(part: int | str) -> str:
    """Unknown field names are input, too, so only those that look like names are repeated."""
    return str(part) if isinstance(part, int) or _NAME.fullmatch(part) else "?"
