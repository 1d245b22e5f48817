"""Opens the configured model. SDKs are imported only when chosen."""

from typing import Final, Literal

from analyst.llm.client import LLMClient
from common.runtime.settings import StartError

MAX_TOKENS: Final = 8192
"""Answers have a few hundred tokens; the rest is for models that cannot turn thinking off."""


def open_client(sdk: Literal["generativeai", "genai"], api_key: str, model: str, endpoint: str) -> LLMClient:
    """Return a client, which the caller closes. Needs a running event loop. Raises StartError without the SDK."""
    try:
        if sdk == "genai":
            from analyst.llm.genai import GenaiClient

            return GenaiClient(api_key=api_key, model=model, endpoint=endpoint, max_tokens=MAX_TOKENS)
        from analyst.llm.generativeai import GenerativeAiClient

        return GenerativeAiClient(api_key=api_key, model=model, endpoint=endpoint, max_tokens=MAX_TOKENS)
    except ImportError as error:
        raise StartError(f"GEMINI_SDK={sdk} is not installed: pip install google-{sdk}") from error
