"""Owns what every protocol of the service shares at its door: who calls, for what, and what each error becomes."""

from collections.abc import Sequence
from typing import Annotated, Final

from aiohttp import web
from pydantic import AfterValidator, BaseModel, Field

from common.http.app import ErrorTable, context, route_of
from common.http.problems import Problem, unavailable
from common.journal.journal import JournalFull
from common.journal.recorder import ClientHasher
from common.runtime.readiness import Readiness
from inference.batching.jobs import DeadlineExceeded, Overloaded, ScoringFailed
from inference.engines.base import ModelCard
from inference.prediction.predictor import Prediction
from inference.prediction.recorder import RequestMetadata
from inference.prediction.service import PredictionService

MAX_CHARACTERS: Final = 10_000
MAX_TEXTS: Final = 64

ANSWERING: Final = web.AppKey("answering", PredictionService)
CLIENT_HASHER: Final = web.AppKey("client_hasher", ClientHasher)
READINESS: Final = web.AppKey("readiness", Readiness)

UNSCORABLE: Final = "The model can't score this text; others are not affected."
_JOURNAL_RETRY_S: Final = 5.0

ERRORS: Final[ErrorTable] = {
    Overloaded: lambda error: unavailable("More texts are waiting than can be scored in time.", error.retry_after_s),
    DeadlineExceeded: lambda _: Problem(504, "The text could not be scored before the request's deadline."),
    JournalFull: lambda _: unavailable("Predictions can't be put on record now.", _JOURNAL_RETRY_S),
    ScoringFailed: lambda _: Problem(500, UNSCORABLE, title="Scoring failed"),
}


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("the text is blank")
    return text


Text = Annotated[
    str,
    Field(min_length=1, max_length=MAX_CHARACTERS, json_schema_extra={"pattern": r"\S"}),
    AfterValidator(_not_blank),
]


class ModelPath(BaseModel):
    """Which model a path names; what it means is for `check_model` to say."""

    model: Annotated[str, Field(examples=["sluice-sentiment-minilm"])]


class VersionPath(ModelPath):
    """Which model in which version."""

    version: Annotated[str, Field(examples=["9680a671e92c"])]


def request_metadata(request: web.Request) -> RequestMetadata:
    """Who sent `request`. The edge writes X-Forwarded-For anew, so its first address is the client's."""
    ctx = context(request)
    forwarded = request.headers.get("X-Forwarded-For", "").partition(",")[0].strip()
    return RequestMetadata(
        route=route_of(request),
        request_id=ctx.request_id,
        trace_id=ctx.trace_id,
        client=request.app[CLIENT_HASHER](forwarded or request.remote),
        started_s=request.app[ANSWERING].now(),
        deadline_s=ctx.deadline_s,
    )


def check_model(card: ModelCard, name: str, version: str | None = None) -> None:
    """Raises Problem 404 unless `name` is the served model's, as `served_name` gives it, and `version` its revision."""
    if name != served_name(card) or version not in (None, card.revision):
        raise Problem(404, "No such model, or not in that version; GET /models lists what is served.")


def served_name(card: ModelCard) -> str:
    """The last part of the model's name: one segment of a path."""
    return card.name.rpartition("/")[2]


async def predictions(request: web.Request, texts: Sequence[str]) -> list[Prediction]:
    """One per text, for protocols that have no place for the error of a single text: it fails the request."""
    predictions = []
    for answer in await request.app[ANSWERING].answer(request_metadata(request), texts, all_or_none=True):
        if isinstance(answer, ScoringFailed):
            raise answer
        predictions.append(answer)
    return predictions
