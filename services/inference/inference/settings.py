"""The settings of the inference service."""

from typing import Annotated, Literal

from pydantic import Field

from common.runtime.settings import EventsSettings, Port, RedisSettings, Seconds, Settings
from common.service import Listen


class InferenceSettings(Settings, RedisSettings, EventsSettings):
    """With 0 for workers or batch tokens the service chooses."""

    prefixes = ("SLUICE_", "INFERENCE_", "EVENTS_")

    inference_host: str = "127.0.0.1"
    inference_port: Port | None = None
    inference_ops_port: Port | None = None
    inference_engine: Literal["auto", "onnx", "torch"] = "auto"
    inference_model: Annotated[str, Field(min_length=1)] = "bundled"
    inference_onnx_file: str = ""
    inference_device: Literal["auto", "cpu", "cuda"] = "auto"
    inference_workers: Annotated[int, Field(ge=0, le=256)] = 0
    inference_max_batch_tokens: Annotated[int, Field(ge=0, le=1 << 20)] = 0
    inference_max_wait_s: Seconds = 2.0
    inference_timeout_s: Seconds = 10.0
    inference_moderation_labels: str = ""
    inference_moderation_threshold: Annotated[float, Field(ge=0, le=1)] = 0.5
    inference_cache_bytes: Annotated[int, Field(ge=0, le=1 << 36)] = 32 << 20

    def listen(self) -> Listen:
        return Listen.at(1, self, self.inference_host, self.inference_port, self.inference_ops_port)
