"""What this replica last saw of the model: a fault that an operator must mend is logged once and shown in health."""

from typing import Final, Literal

import structlog
from pydantic import BaseModel

log = structlog.get_logger()

Condition = Literal["no_key", "not_asked", "ok", "not_found", "unauthorised", "invalid", "failing"]

_FAULTS: Final[dict[str, Condition]] = {
    "not_found": "not_found",
    "unauthorised": "unauthorised",
    "invalid": "invalid",
    "unavailable": "failing",
    "timeout": "failing",
    "connection": "failing",
    "not_connected": "failing",
}


class ModelHealth(BaseModel):
    """`not_found`: the provider knows no such model (retired?); `failing`: the last call failed, the next may not."""

    name: str | None
    state: Condition


class ModelState:
    """`model` is None where no key is set."""

    def __init__(self, model: str | None) -> None:
        self._model = model
        self._state: Condition = "no_key" if model is None else "not_asked"

    @property
    def health(self) -> ModelHealth:
        return ModelHealth(name=self._model, state=self._state)

    @property
    def is_degraded(self) -> bool:
        return self._state not in ("no_key", "not_asked", "ok")

    def attempt_ended(self, outcome: str) -> None:
        """Hear how an attempt ended; other outcomes, such as a full quota, say nothing about the model."""
        state = "ok" if outcome == "ok" else _FAULTS.get(outcome)
        if state is None or state == self._state:
            return
        if state not in ("ok", "failing"):
            log.error("the model cannot be used: check GEMINI_MODEL and GEMINI_API_KEY", model=self._model, state=state)
        self._state = state
