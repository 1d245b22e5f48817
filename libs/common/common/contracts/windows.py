"""Time windows, and the base of every contract."""

from typing import Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict

Window = Literal["5m", "15m", "1h", "6h", "24h", "7d", "30d"]
WINDOW_S: Final[dict[Window, int]] = {
    "5m": 300,
    "15m": 900,
    "1h": 3_600,
    "6h": 21_600,
    "24h": 86_400,
    "7d": 604_800,
    "30d": 2_592_000,
}


class Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TimeRange(Body):
    start: AwareDatetime
    end: AwareDatetime
