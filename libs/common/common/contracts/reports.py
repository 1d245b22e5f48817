"""What the analyst reports about its model, and the edge shows in /health."""

from typing import Literal

from common.contracts.base import Body

ModelCondition = Literal["no_key", "not_asked", "ok", "not_found", "unauthorised", "invalid", "failing"]


class ModelHealth(Body):
    """`not_found`: the provider knows no such model (retired?); `failing`: the last call failed, the next may not."""

    name: str | None
    state: ModelCondition


class AnalystHealth(Body):
    """`degraded`: reports are written by rules, because the model cannot be used."""

    status: Literal["ok", "degraded"]
    model: ModelHealth
