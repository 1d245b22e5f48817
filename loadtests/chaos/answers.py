"""The outcome of each request: address, times, status, and whether an error was a valid problem document."""

import json
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["json", "problem", "other", "none"]

LIMIT_HEADER: Final = "X-RateLimit-Limit"
TOO_BUSY: Final = (  # details of 503: inference cannot score in time; the edge has its maximum in flight
    "More texts are waiting",
    "The inference service is full",
)
JOURNAL_FULL: Final = "on record"  # part of the detail of a 503 for a full journal
MOST_SHED: Final = 0.01  # share of predictions, without faults on a machine that is not slow
_NEEDS_RETRY_AFTER: Final = (429, 503)


@dataclass(frozen=True, slots=True)
class Answer:
    """One request. Times are Unix seconds. `status` is None if the connection broke.

    `fault` is what is wrong with the response. `counted`: the edge charged `cost` to the address.
    """

    id: str
    path: str
    address: str
    cost: int
    sent_s: float
    answered_s: float
    status: int | None
    kind: Kind = "none"
    counted: bool = False
    fault: str = ""
    detail: str = ""


def is_shed(answer: Answer) -> bool:
    """Whether the request was rejected with Retry-After because of overload."""
    return answer.status == 503 and answer.detail.startswith(TOO_BUSY)


def is_journal_full(answer: Answer) -> bool:
    """Whether the request was rejected because its event could not be stored."""
    return answer.status == 503 and JOURNAL_FULL in answer.detail


def kind_of(content_type: str) -> Kind:
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == "application/problem+json":
        return "problem"
    return "json" if media_type == "application/json" else "other"


def fault_of(status: int, kind: Kind, body: bytes, retry_after: str | None, request_id: str) -> str:
    """Return what is wrong with a response, empty if nothing."""
    if status < 400:
        return "" if kind == "json" else f"{status} without JSON"
    if kind != "problem":
        return f"{status} without a problem document"
    try:
        document = json.loads(body)
    except ValueError:
        return f"{status} with a problem document that is no JSON"
    if not isinstance(document, dict) or not {"type", "title"} <= document.keys():
        return f"{status} with an incomplete problem document"
    if document.get("status") != status or document.get("request_id") != request_id:
        return f"{status} with the problem document of another answer"
    if status in _NEEDS_RETRY_AFTER and not (retry_after or "").isdecimal():
        return f"{status} without Retry-After"
    return ""


def detail_of(body: bytes) -> str:
    """Return a problem's detail, for the report of a failed run."""
    try:
        return str(json.loads(body).get("detail", ""))
    except (ValueError, AttributeError):
        return ""
