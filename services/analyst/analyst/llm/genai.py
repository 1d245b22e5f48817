"""Gemini by google-genai over REST. The SDK's retries are off and its errors are translated."""

import asyncio
import re
from typing import Final

import aiohttp
import httpx2
from google import genai
from google.genai import errors, types

from analyst.llm.client import (
    DEFAULT_BLOCK_S,
    MAX_ANSWER_BYTES,
    Completion,
    Fatal,
    LLMError,
    NotSent,
    Prompt,
    RateLimited,
    Retryable,
)

ENDPOINT: Final = "https://generativelanguage.googleapis.com"
API_VERSION: Final = "v1beta"
_RETRY_INFO: Final = "type.googleapis.com/google.rpc.RetryInfo"
_DURATION: Final = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,9})?)s", re.ASCII)


class GenaiClient:
    """Needs a running event loop. `endpoint` is a URL, or empty for Google's."""

    def __init__(self, *, api_key: str, model: str, endpoint: str, max_tokens: int) -> None:
        self.model = model
        self._max_tokens = max_tokens
        self._session = aiohttp.ClientSession(trust_env=True, response_class=_Bounded)
        self._client = genai.Client(
            api_key=api_key,
            vertexai=False,
            http_options=types.HttpOptions(
                base_url=endpoint or ENDPOINT,
                api_version=API_VERSION,
                retry_options=types.HttpRetryOptions(attempts=1),
                aiohttp_client=self._session,
                client_args={"trust_env": False},  # unused clients, which raise on a SOCKS proxy
                async_client_args={
                    "trust_env": False,
                    "allow_redirects": False,
                },  # redirects would leak the key
            ),
        )

    async def complete(self, prompt: Prompt, timeout_s: float) -> Completion:
        """See LLMClient."""
        config = types.GenerateContentConfig(
            system_instruction=prompt.system,
            response_mime_type="application/json",
            response_schema=prompt.schema,
            temperature=None if self.model.startswith("gemini-3") else 0.0,  # deprecated there
            thinking_config=thinking(self.model),
            max_output_tokens=self._max_tokens,
            http_options=types.HttpOptions(timeout=max(1, round(timeout_s * 1000))),
        )
        try:
            async with asyncio.timeout(timeout_s + 0.5):
                response = await self._client.aio.models.generate_content(
                    model=self.model, contents=prompt.user, config=config
                )
        except errors.APIError as error:
            raise _translated(error) from error
        except (aiohttp.ClientConnectorError, httpx2.ConnectError) as error:
            raise NotSent("not_connected") from error
        except (TimeoutError, httpx2.TimeoutException) as error:
            raise Retryable("timeout") from error
        except (aiohttp.ClientError, httpx2.HTTPError, OSError) as error:
            raise Retryable("connection") from error
        except Exception as error:  # the SDK raises anything for an answer that is not Gemini's
            raise Fatal("unknown") from error
        return _completion(response, self.model)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aio.aclose()
        self._client.close()
        await self._session.close()


class _Bounded(aiohttp.ClientResponse):
    """Limits the size of an answer, which the SDK does not."""

    async def read(self) -> bytes:
        if self._body is None:  # where `text` and `json` look for it
            body = bytearray()
            async for part in self.content.iter_any():
                body += part
                if len(body) > MAX_ANSWER_BYTES:
                    self.close()
                    raise aiohttp.ClientPayloadError("the answer is too long")
            self._body = bytes(body)
        return self._body


def thinking(model: str) -> types.ThinkingConfig | None:
    """Return the least thinking that the model's family allows."""
    if model.startswith("gemini-2.5-pro"):
        return types.ThinkingConfig(thinking_budget=128)
    if model.startswith("gemini-2.5"):
        return types.ThinkingConfig(thinking_budget=0)
    if model.startswith("gemini-3"):
        level = types.ThinkingLevel.LOW if "pro" in model else types.ThinkingLevel.MINIMAL
        return types.ThinkingConfig(thinking_level=level)
    return None


def _completion(response: types.GenerateContentResponse, model: str) -> Completion:
    feedback = response.prompt_feedback
    if not response.candidates or (feedback is not None and feedback.block_reason):
        raise Fatal("blocked")
    candidate = response.candidates[0]
    if candidate.finish_reason == types.FinishReason.MAX_TOKENS:
        raise Fatal("truncated")
    if candidate.finish_reason != types.FinishReason.STOP:
        raise Fatal("blocked")
    parts = candidate.content.parts if candidate.content else None
    text = "".join(part.text or "" for part in parts or () if not part.thought)
    usage = response.usage_metadata
    input_tokens = (usage.prompt_token_count or 0) if usage else 0
    output_tokens = (usage.candidates_token_count or 0) + (usage.thoughts_token_count or 0) if usage else 0
    return Completion(text, response.model_version or model, input_tokens, output_tokens)


def _translated(error: errors.APIError) -> LLMError:
    match error.code:
        case 429:
            return RateLimited(_retry_after_s(error) or DEFAULT_BLOCK_S)
        case 401 | 403:
            return Fatal("unauthorised")
        case 404:
            return Fatal("not_found")
        case 400:
            return Fatal("invalid")
        case 504:
            return Retryable("timeout", _retry_after_s(error))
        case code if code >= 500:
            return Retryable("unavailable", _retry_after_s(error))
        case _:
            return Fatal("unknown")


def _retry_after_s(error: errors.APIError) -> float | None:
    """Return the delay of a RetryInfo. The answer may have any shape, for example a proxy's."""
    found = error.details
    for name in ("error", "details"):
        found = found.get(name) if isinstance(found, dict) else None
    for detail in found if isinstance(found, list) else ():
        if isinstance(detail, dict) and detail.get("@type") == _RETRY_INFO:
            delay = _DURATION.fullmatch(str(detail.get("retryDelay")))
            return float(delay[1]) if delay else None
    return None
