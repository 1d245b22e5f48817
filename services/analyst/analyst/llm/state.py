"""What this replica last saw of the model: a fault that an operator must mend is logged once and shown in health."""

from typing import Final

import structlog

from common.contracts.reports import ModelCondition, ModelHealth

log = structlog.get_logger()

_FAULTS: Final[dict[str, ModelCondition]] = {
    "not_found": "not_found",
    "unauthorised": "unauthorised",
    "invalid": "invalid",
    "unavailable": "failing",
    "timeout": "failing",
    "connection": "failing",
    "not_connected": "failing",
    "unknown": "failing",
}


class ModelState:
    """`model` is None where no key is set."""

    def __init__(self, model: str | None) -> None:
        self._model = model
        self._state: ModelCondition = "no_key" if model is None else "not_asked"

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
