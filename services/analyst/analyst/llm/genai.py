"""The Writer over google-genai (REST): one attempt per call, its hidden retries off, its errors translated."""

import asyncio
import re
from typing import Any, Final

import aiohttp
import httpx2
from google import genai
from google.genai import errors, types

from analyst.llm.client import Fatal, NotSent, Prompt, RateLimited, Retryable, WriterError

ENDPOINT: Final = "https://generativelanguage.googleapis.com"
API_VERSION: Final = "v1beta"
DEFAULT_BLOCK_S: Final = 60.0  # a 429 without a RetryInfo: the quota is per minute
MAX_ANSWER_BYTES: Final = 4 << 20  # as gRPC has it
_RETRY_INFO: Final = "type.googleapis.com/google.rpc.RetryInfo"
_DURATION: Final = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,9})?)s", re.ASCII)


class GenaiWriter:
    """Needs a running event loop. `endpoint` is a URL; empty means Google's own."""

    def __init__(self, *, api_key: str, model: str, endpoint: str, schema: dict[str, Any], max_tokens: int) -> None:
        self.model = model
        self._schema = schema
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
                client_args={"trust_env": False},  # of clients that nobody asks: they refuse a SOCKS proxy by raising
                async_client_args={"trust_env": False, "allow_redirects": False},  # the key would go along, anywhere
            ),
        )

    async def write(self, prompt: Prompt, timeout_s: float) -> str:
        """See `analyst.llm.client.LLMClient`."""
        config = types.GenerateContentConfig(
            system_instruction=prompt.system,
            response_mime_type="application/json",
            response_schema=self._schema,
            temperature=0.0,
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
        except Exception as error:  # the SDK raises what it likes for an answer that is not Gemini's
            raise Fatal("unknown") from error
        return _text(response)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aio.aclose()
        self._client.close()
        await self._session.close()


class _Bounded(aiohttp.ClientResponse):
    """The SDK reads all of an answer, however long it is."""

    async def read(self) -> bytes:
        if self._body is None:  # where `text` and `json`, which the SDK calls, look for it
            body = bytearray()
            async for part in self.content.iter_any():
                body += part
                if len(body) > MAX_ANSWER_BYTES:
                    self.close()
                    raise aiohttp.ClientPayloadError("the answer is too long")
            self._body = bytes(body)
        return self._body


def _text(response: types.GenerateContentResponse) -> str:
    feedback = response.prompt_feedback
    if not response.candidates or (feedback is not None and feedback.block_reason):
        raise Fatal("blocked")
    candidate = response.candidates[0]
    if candidate.finish_reason == types.FinishReason.MAX_TOKENS:
        raise Fatal("truncated")
    if candidate.finish_reason != types.FinishReason.STOP:
        raise Fatal("blocked")
    parts = candidate.content.parts if candidate.content else None
    return "".join(part.text or "" for part in parts or ())


def _translated(error: errors.APIError) -> WriterError:
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
    """What a RetryInfo says; the answer may be anybody's, such as a proxy's."""
    found = error.details
    for name in ("error", "details"):
        found = found.get(name) if isinstance(found, dict) else None
    for detail in found if isinstance(found, list) else ():
        if isinstance(detail, dict) and detail.get("@type") == _RETRY_INFO:
            delay = _DURATION.fullmatch(str(detail.get("retryDelay")))
            return float(delay[1]) if delay else None
    return None
