"""Opens the model that the settings name; imports an SDK only when it is the chosen one."""

from typing import Final, Literal

from analyst.llm.client import LLMClient
from analyst.llm.prompt import draft_schema
from common.runtime.settings import StartError

MAX_TOKENS: Final = 4096


def open_writer(sdk: Literal["generativeai", "genai"], api_key: str, model: str, endpoint: str) -> LLMClient:
    """Needs a running event loop; close what it returns. Raises StartError where the SDK is not installed."""
    try:
        if sdk == "genai":
            from analyst.llm.genai import GenaiWriter

            return GenaiWriter(
                api_key=api_key, model=model, endpoint=endpoint, schema=draft_schema(), max_tokens=MAX_TOKENS
            )
        from analyst.llm.generativeai import GenerativeAiWriter

        return GenerativeAiWriter(
            api_key=api_key, model=model, endpoint=endpoint, schema=draft_schema(), max_tokens=MAX_TOKENS
        )
    except ImportError as error:
        raise StartError(f"GEMINI_SDK={sdk} is not installed: pip install google-{sdk}") from error
