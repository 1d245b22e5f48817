"""What the analyst reports about its model, and the edge shows in /health."""

from typing import Literal

from common.contracts.windows import Body

ModelCondition = Literal["no_key", "not_asked", "ok", "not_found", "unauthorised", "invalid", "truncated", "failing"]


class ModelHealth(Body):
    """`not_found`: the provider lacks the model, which may be retired. `failing`: the last call failed.

    `truncated`: the answer exceeded the output limit.
    """

    name: str | None
    state: ModelCondition


class AnalystHealth(Body):
    """`degraded`: reports come from rules, because the model is unavailable."""

    status: Literal["ok", "degraded"]
    model: ModelHealth
