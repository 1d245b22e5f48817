"""The port to the model that writes drafts, and what can go wrong with it; knows no vendor."""

from dataclasses import dataclass
from typing import Final, Literal, Protocol

FatalReason = Literal["invalid", "unauthorised", "not_found", "blocked", "truncated", "unknown"]


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the model is told: who it is, and the facts to write about."""

    system: str
    user: str


ATTEMPTS: Final = 4


@dataclass(slots=True)
class Budget:
    """What one report may still spend on the model: attempts, and the time until `deadline_s`."""

    deadline_s: float
    attempts: int = ATTEMPTS


class WriterError(Exception):
    """The model gave no draft."""


class Retryable(WriterError):
    """500, 503, a timeout or a broken connection: the same call may work later. The call counts as sent."""

    def __init__(self, reason: str, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after_s = retry_after_s


class NotSent(Retryable):
    """No byte left this process (nobody listens, no such name): the slot may be given back."""


class RateLimited(WriterError):
    """The provider refused with 429; asking again before `retry_after_s` is useless."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__("rate_limited")
        self.retry_after_s = retry_after_s


class Fatal(WriterError):
    """The same call would fail again."""

    def __init__(self, reason: FatalReason) -> None:
        super().__init__(reason)
        self.reason = reason


class LLMClient(Protocol):
    """One attempt, never retried inside."""

    @property
    def model(self) -> str: ...

    async def write(self, prompt: Prompt, timeout_s: float) -> str:
        """The model's JSON text, complete. Raises WriterError."""
        ...

    async def close(self) -> None: ...
