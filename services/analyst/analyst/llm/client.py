"""The interface to a language model, and its errors."""

from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

FatalReason = Literal["invalid", "unauthorised", "not_found", "blocked", "truncated", "unknown"]

ATTEMPTS: Final = 4
MAX_ANSWER_BYTES: Final = 4 << 20
DEFAULT_BLOCK_S: Final = 60.0
"""For a 429 without a time to wait, because quotas are per minute."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """Instructions, the facts, and the JSON Schema of the answer."""

    system: str
    user: str
    schema: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Completion:
    """A complete answer, the model that wrote it, and the tokens it cost."""

    text: str
    model: str
    input_tokens: int = 0
    output_tokens: int = 0


@dataclass(slots=True)
class Budget:
    """What one report may still spend on the model: attempts, and the time until `deadline_s`."""

    deadline_s: float
    attempts: int = ATTEMPTS
    answered: list[Completion] = field(default_factory=list)


class LLMError(Exception):
    """The model gave no answer."""


class Retryable(LLMError):
    """500, 503, a timeout or a broken connection: the same call may succeed later. It counts as sent."""

    def __init__(self, reason: str, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after_s = retry_after_s


class NotSent(Retryable):
    """The connection failed before any byte was sent, so the call can be refunded."""


class RateLimited(LLMError):
    """The provider answered 429: no call before `retry_after_s` can succeed."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__("rate_limited")
        self.retry_after_s = retry_after_s


class Fatal(LLMError):
    """The same call would fail again."""

    def __init__(self, reason: FatalReason) -> None:
        super().__init__(reason)
        self.reason = reason


class LLMClient(Protocol):
    """One attempt per call, without hidden retries."""

    @property
    def model(self) -> str: ...

    async def complete(self, prompt: Prompt, timeout_s: float) -> Completion:
        """Return the model's complete answer. Raises LLMError."""
        ...

    async def close(self) -> None: ...
