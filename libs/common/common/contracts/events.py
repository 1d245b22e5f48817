"""Events on the stream from the services to the database."""

from typing import Annotated, Final, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

STREAM: Final = "{predictions}"
DEAD_LETTERS: Final = "{predictions}:dead"
EVENT_FIELD: Final = "event"

Outcome = Literal["ok", "limited", "invalid", "bad_gateway", "unavailable", "timeout", "error"]
Micros = Annotated[int, Field(ge=0, le=1 << 53)]
Count = Annotated[int, Field(ge=0, le=(1 << 31) - 1)]
ClientHash = Annotated[str, Field(max_length=64, description="Keyed HMAC of the client's address.")]
MAX_CLIENTS: Final = 5


class Event(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    id: Annotated[str, Field(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
    at_us: Annotated[Micros, Field(description="Unix time in µs when the producer recorded the event.")]
    route: Annotated[str, Field(max_length=64)]
    outcome: Outcome


class PredictionEvent(Event):
    """One text that was scored or that failed, from any route."""

    kind: Literal["prediction"] = "prediction"
    request_id: Annotated[str, Field(max_length=128)]
    trace_id: Annotated[str, Field(max_length=32)] | None = None
    model: Annotated[str, Field(min_length=1, max_length=128, description="Empty in rollups of counters.")]
    revision: Annotated[str, Field(max_length=64)]
    label: Annotated[str, Field(max_length=64)] | None = None
    score: Annotated[float, Field(ge=0, le=1)] | None = None
    margin: Annotated[float, Field(ge=0, le=1)] | None = None
    cached: bool = False
    truncated: bool = False
    latency_us: Count
    queue_us: Count = 0
    compute_us: Count = 0
    tokens: Count = 0
    characters: Count = 0
    client: ClientHash | None = None
    text: Annotated[str, Field(max_length=10_000)] | None = None


class LimitedClient(NamedTuple):
    """A client, and how many of its requests were limited; a pair in JSON."""

    client: ClientHash
    n: Annotated[int, Field(ge=1, le=1 << 31)]


class CounterEvent(Event):
    """`n` requests that a service refused or failed within one second, so that a flood writes few rows."""

    kind: Literal["counter"] = "counter"
    policy: Annotated[str, Field(max_length=64)] = ""
    n: Annotated[int, Field(ge=1, le=1 << 31)]
    clients: (
        Annotated[
            tuple[LimitedClient, ...],
            Field(max_length=MAX_CLIENTS, description="The most limited clients, most first."),
        ]
        | None
    ) = None


AnyEvent = Annotated[PredictionEvent | CounterEvent, Field(discriminator="kind")]
EVENT_ADAPTER: TypeAdapter[PredictionEvent | CounterEvent] = TypeAdapter(AnyEvent)
