"""Tensors of the Open Inference Protocol v2, as JSON or in its binary extension.

In the extension a body is JSON followed by the tensors' bytes. A header gives the length of the JSON.
"""

import json
import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from common.http.problems import Problem, field_errors
from inference.api.common import Texts

JSON_LENGTH: Final = "Inference-Header-Content-Length"
_TEXTS: Final = TypeAdapter(Texts)


class _Part(BaseModel):
    """Unknown parameters are ignored."""

    model_config = ConfigDict(frozen=True)


class InputParameters(_Part):
    binary_data_size: Annotated[int, Field(ge=0)] | None = None


class Input(_Part):
    """`data` is flat, or nested like `shape`."""

    name: Literal["text"]
    datatype: Literal["BYTES"]
    shape: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1, max_length=2)]
    data: list[Any] | None = None
    parameters: InputParameters = InputParameters()


class OutputParameters(_Part):
    model_config = ConfigDict(extra="forbid")

    binary_data: bool = False


class RequestedOutput(_Part):
    name: Literal["label", "score", "scores"]
    parameters: OutputParameters = OutputParameters()


class RequestParameters(_Part):
    binary_data_output: bool = False


class InferRequest(_Part):
    """Without `outputs`, all outputs are sent."""

    id: str | None = None
    inputs: Annotated[list[Input], Field(min_length=1, max_length=1)]
    outputs: Annotated[list[RequestedOutput], Field(max_length=3)] = []
    parameters: RequestParameters = RequestParameters()


@dataclass(frozen=True, slots=True)
class Output:
    """One output tensor in row-major order, either strings (BYTES) or numbers (FP32)."""

    name: str
    shape: list[int]
    values: Sequence[str] | Sequence[float]


def read(body: bytes, json_length: str | None) -> tuple[InferRequest, list[str]]:
    """Return the request and its texts. Raises Problem 400 with the position of what is wrong."""
    length = _json_length(body, json_length)
    try:
        asked = InferRequest.model_validate_json(body[:length], strict=True)
    except ValidationError as error:
        raise _bad_request(error, "") from None
    [tensor] = asked.inputs
    try:
        texts = _TEXTS.validate_python(_elements(tensor, body[length:]), strict=True)
    except ValidationError as error:
        raise _bad_request(error, "inputs.0.data") from None
    if math.prod(tensor.shape) != len(texts):
        raise Problem(400, f"The input's shape does not match its {len(texts)} texts.")
    return asked, texts


def response(head: dict[str, Any], asked: InferRequest, outputs: Sequence[Output]) -> web.Response:
    """Return the requested outputs in that order, each as JSON or in binary."""
    binary_by_name: dict[str, bool] = {each.name: each.parameters.binary_data for each in asked.outputs}
    if not binary_by_name:
        binary_by_name = {each.name: asked.parameters.binary_data_output for each in outputs}
    named = {each.name: each for each in outputs}
    described, tails = [], []
    for name, is_binary in binary_by_name.items():
        output = named[name]
        description: dict[str, Any] = {"name": name, "datatype": _datatype(output), "shape": output.shape}
        if is_binary:
            tails.append(_to_bytes(output))
            description["parameters"] = {"binary_data_size": len(tails[-1])}
        else:
            description["data"] = output.values
        described.append(description)
    document = head | ({"id": asked.id} if asked.id else {}) | {"outputs": described}
    body = json.dumps(document).encode()
    if not tails:
        return web.Response(body=body, content_type="application/json")
    return web.Response(
        body=b"".join([body, *tails]),
        content_type="application/octet-stream",
        headers={JSON_LENGTH: str(len(body))},
    )


def _json_length(body: bytes, header: str | None) -> int:
    if header is None:
        return len(body)
    if not (header.isascii() and header.isdigit() and len(header) < 10 and int(header) <= len(body)):
        raise Problem(400, f"{JSON_LENGTH} is not a length within the body.")
    return int(header)


def _bad_request(error: ValidationError, root: str) -> Problem:
    """Return a 400 with every error in one line, for the protocol's single string."""
    found = [(".".join(filter(None, (root, each.field))), each.message) for each in field_errors(error, "body")]
    return Problem(400, "; ".join(f"{field}: {message}" if field else message for field, message in found))


def _elements(tensor: Input, binary: bytes) -> list[Any]:
    size = tensor.parameters.binary_data_size
    if (size is None) == (tensor.data is None) or len(binary) != (size or 0):
        raise Problem(400, "The input needs either data, or binary_data_size and that many bytes after the JSON.")
    return _flat(tensor.data) if tensor.data is not None else list(_strings(binary))


def _flat(data: list[Any]) -> list[Any]:
    flat = []
    for item in data:
        flat += item if isinstance(item, list) else [item]
    return flat


def _strings(binary: bytes) -> Iterator[str]:
    """Yield the strings: each is its length in four little-endian bytes, then its UTF-8."""
    place = 0
    while place < len(binary):
        end = place + 4 + int.from_bytes(binary[place : place + 4], "little")
        if place + 4 > len(binary) or end > len(binary):
            raise Problem(400, "The binary data ends within a text.")
        try:
            yield binary[place + 4 : end].decode()
        except UnicodeDecodeError:
            raise Problem(400, "A text is not UTF-8.") from None
        place = end


def _datatype(output: Output) -> str:
    return "BYTES" if isinstance(output.values[0], str) else "FP32"


def _to_bytes(output: Output) -> bytes:
    parts = []
    for value in output.values:
        if isinstance(value, str):
            text = value.encode()
            parts.append(len(text).to_bytes(4, "little") + text)
        else:
            parts.append(struct.pack("<f", value))
    return b"".join(parts)
