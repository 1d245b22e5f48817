"""The state of the model as this replica last saw it, for health checks and one log entry per fault."""

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
    "truncated": "truncated",
}


class ModelState:
    """`model` is None without a model."""

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
        """Record the outcome of an attempt. Others, such as a full quota, leave the state."""
        state = "ok" if outcome == "ok" else _FAULTS.get(outcome)
        if state is None or state == self._state:
            return
        if state not in ("ok", "failing"):
            log.error("model unusable, check its name and key", model=self._model, state=state)
        self._state = state
