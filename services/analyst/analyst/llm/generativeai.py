"""Gemini by google-generativeai over gRPC. The SDK's retries are off and its errors are translated.

Google ended its support; `analyst.llm.genai` is the successor.
"""

import asyncio
import re
import warnings
from typing import Any, Final

import grpc
from google.ai.generativelanguage import GenerativeServiceAsyncClient
from google.ai.generativelanguage_v1beta.services.generative_service.transports import (
    GenerativeServiceGrpcAsyncIOTransport,
)
from google.api_core import exceptions
from google.rpc.error_details_pb2 import RetryInfo

from analyst.llm.client import (
    DEFAULT_BLOCK_S,
    Completion,
    Fatal,
    LLMError,
    NotSent,
    Prompt,
    RateLimited,
    Retryable,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # it warns at every import
    from google.generativeai import GenerativeModel
    from google.generativeai.types import GenerationConfig

ENDPOINT: Final = "generativelanguage.googleapis.com"
_FINISHED, _MAX_TOKENS = 1, 2
_NOT_CONNECTED: Final = re.compile("failed to connect to all addresses|errors resolving |DNS resolution failed")


class GenerativeAiClient:
    """Needs a running event loop. `endpoint` is host[:port], or `http://host:port` for a plain-text test server."""

    def __init__(self, *, api_key: str, model: str, endpoint: str, max_tokens: int) -> None:
        self.model = model
        self._metadata = [("x-goog-api-key", api_key)]
        self._max_tokens = max_tokens
        self._channel = _channel(endpoint or ENDPOINT)
        self._client = GenerativeServiceAsyncClient(
            transport=GenerativeServiceGrpcAsyncIOTransport(channel=self._channel)
        )

    async def complete(self, prompt: Prompt, timeout_s: float) -> Completion:
        """See LLMClient."""
        config = GenerationConfig(
            response_mime_type="application/json",
            response_schema=prompt.schema,
            temperature=None if self.model.startswith("gemini-3") else 0.0,  # deprecated there
            max_output_tokens=self._max_tokens,
        )
        model = GenerativeModel(self.model, system_instruction=prompt.system, generation_config=config)
        model._async_client = self._client  # the only way to use our own channel
        options = {"retry": None, "timeout": timeout_s, "metadata": self._metadata}
        try:
            async with asyncio.timeout(timeout_s + 0.5):
                response = await model.generate_content_async(prompt.user, request_options=options)
        except exceptions.GoogleAPICallError as error:
            raise _translated(error) from error
        except TimeoutError as error:
            raise Retryable("timeout") from error
        except Exception as error:  # gRPC and the SDK raise anything, for example for an odd key
            raise Fatal("unknown") from error
        return _completion(response, self.model)

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()


def _channel(endpoint: str) -> grpc.aio.Channel:
    if endpoint.startswith("http://"):
        return grpc.aio.insecure_channel(endpoint.removeprefix("http://"))
    target = endpoint.removeprefix("https://")
    return grpc.aio.secure_channel(target, grpc.ssl_channel_credentials())


def _completion(response: Any, model: str) -> Completion:
    if response.prompt_feedback.block_reason or not response.candidates:
        raise Fatal("blocked")
    candidate = response.candidates[0]
    if candidate.finish_reason == _MAX_TOKENS:
        raise Fatal("truncated")
    if candidate.finish_reason != _FINISHED:
        raise Fatal("blocked")
    text = "".join(part.text for part in candidate.content.parts)
    usage = response.usage_metadata
    answered = getattr(response, "model_version", "") or model
    return Completion(text, answered, usage.prompt_token_count, usage.candidates_token_count)


def _translated(error: exceptions.GoogleAPICallError) -> LLMError:
    match error:
        case exceptions.ResourceExhausted():
            return RateLimited(_retry_after_s(error) or DEFAULT_BLOCK_S)
        case exceptions.Unauthenticated() | exceptions.PermissionDenied():
            return Fatal("unauthorised")
        case exceptions.NotFound():
            return Fatal("not_found")
        case exceptions.InvalidArgument() | exceptions.FailedPrecondition():
            return Fatal("invalid")
        case exceptions.DeadlineExceeded():
            return Retryable("timeout", _retry_after_s(error))
        case exceptions.ServiceUnavailable() if _NOT_CONNECTED.search(str(error)):
            return NotSent("not_connected")
        case exceptions.ServerError():
            return Retryable("unavailable", _retry_after_s(error))
        case _:
            return Fatal("unknown")


def _retry_after_s(error: exceptions.GoogleAPICallError) -> float | None:
    for detail in error.details:
        if isinstance(detail, RetryInfo):
            return float(detail.retry_delay.seconds + detail.retry_delay.nanos / 1e9)
    return None
