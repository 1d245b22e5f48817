"""Owns what the Open Inference Protocol v2 answers, and how its operations are described, with examples."""

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict

from inference.api.tensors import InferRequest, Input


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ServerMetadata(_Part):
    name: str
    version: str
    extensions: list[str]


class Live(_Part):
    live: bool


class Ready(_Part):
    ready: bool


class ModelReady(Ready):
    name: str


class TensorMetadata(_Part):
    """A negative size is any size."""

    name: str
    datatype: Literal["BYTES", "FP32"]
    shape: list[int]


class ModelMetadata(_Part):
    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class OutputTensor(_Part):
    """`data` is in row-major order."""

    name: Literal["label", "score", "scores"]
    datatype: Literal["BYTES", "FP32"]
    shape: list[int]
    data: list[str] | list[float]


class InferResponse(_Part):
    """The outputs that were asked for, all by default; `id` is the request's, absent if that had none."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[OutputTensor]


class ProtocolError(_Part):
    """How this protocol says what went wrong."""

    error: str


_NAME: Final = "sluice-sentiment-minilm"
_VERSION: Final = "9680a671e92c"
_BROKEN: Final = {500: ProtocolError(error="The service failed to answer; quote the request id.")}
_MISSING: Final = {
    404: ProtocolError(error="No such model, or not in that version; GET /models lists what is served."),
    **_BROKEN,
}

SERVER: Final[dict[str, Any]] = {
    "response": ServerMetadata,
    "examples": [ServerMetadata(name="sluice", version="0.1.0", extensions=["binary_tensor_data"])],
}
LIVE: Final[dict[str, Any]] = {"response": Live, "responses": _BROKEN, "examples": [Live(live=True)]}
READY: Final[dict[str, Any]] = {
    "response": Ready,
    "responses": {503: Ready(ready=False), **_BROKEN},
    "examples": [Ready(ready=True)],
}
MODEL_READY: Final[dict[str, Any]] = {
    "response": ModelReady,
    "responses": {503: ModelReady(name=_NAME, ready=False), **_MISSING},
    "examples": [ModelReady(name=_NAME, ready=True)],
}
MODEL: Final[dict[str, Any]] = {
    "response": ModelMetadata,
    "responses": _MISSING,
    "examples": [
        ModelMetadata(
            name=_NAME,
            versions=[_VERSION],
            platform="sluice_onnx",
            inputs=[TensorMetadata(name="text", datatype="BYTES", shape=[-1])],
            outputs=[
                TensorMetadata(name="label", datatype="BYTES", shape=[-1]),
                TensorMetadata(name="score", datatype="FP32", shape=[-1]),
                TensorMetadata(name="scores", datatype="FP32", shape=[-1, 2]),
            ],
        )
    ],
}
INFER: Final[dict[str, Any]] = {
    "body": InferRequest,
    "response": InferResponse,
    "media": {"application/octet-stream": "the answer's JSON, then the tensors' bytes"},
    "responses": {
        400: ProtocolError(error="The input's shape does not match its 2 texts."),
        413: ProtocolError(error="The body is larger than this service takes."),
        503: ProtocolError(error="More texts are waiting than can be scored in time."),
        504: ProtocolError(error="The text could not be scored before the request's deadline."),
        **_MISSING,
    },
    "examples": [
        InferRequest(id="7", inputs=[Input(name="text", datatype="BYTES", shape=[1], data=["A wonderful film."])]),
        InferResponse(
            model_name=_NAME,
            model_version=_VERSION,
            id="7",
            outputs=[
                OutputTensor(name="label", datatype="BYTES", shape=[1], data=["POSITIVE"]),
                OutputTensor(name="score", datatype="FP32", shape=[1], data=[0.9637638819531743]),
                OutputTensor(name="scores", datatype="FP32", shape=[1, 2], data=[0.036236118, 0.963763882]),
            ],
        ),
    ],
}
