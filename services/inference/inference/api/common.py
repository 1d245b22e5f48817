"""What all protocols share: checks of texts, the one path from texts to predictions, and the problem of each error."""

from collections.abc import Sequence
from typing import Annotated, Any, Final, TypeAlias

from aiohttp import web
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field
from pydantic_core import PydanticCustomError

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

PREDICTIONS: Final = web.AppKey("predictions", PredictionService)
CLIENT_HASHER: Final = web.AppKey("client_hasher", ClientHasher)
READINESS: Final = web.AppKey("readiness", Readiness)

_JOURNAL_RETRY_S: Final = 5.0


class TextError(BaseModel):
    """Why one text of a list has no prediction."""

    title: str
    detail: str


SCORING_FAILED: Final = TextError(
    title="Scoring failed", detail="The model cannot score this text. Other texts are not affected."
)

ERRORS: Final[ErrorTable] = {
    Overloaded: lambda error: unavailable("More texts are waiting than can be scored in time.", error.retry_after_s),
    DeadlineExceeded: lambda _: Problem(504, "The text could not be scored before the request's deadline."),
    JournalFull: lambda _: unavailable("Predictions can't be put on record now.", _JOURNAL_RETRY_S),
    ScoringFailed: lambda _: Problem(500, SCORING_FAILED.detail, title=SCORING_FAILED.title),
}


def text_error(text: str) -> str | None:
    """Return what is wrong with a text, or None."""
    if not text or text.isspace():
        return "The text is blank."
    if len(text) > MAX_CHARACTERS:
        return f"The text has {len(text):,} characters; at most {MAX_CHARACTERS:,} are accepted."
    return None


def _check_text(text: str) -> str:
    if (message := text_error(text)) is not None:
        raise PydanticCustomError("text", "{message}", {"message": message})
    return text


Text = Annotated[
    str,
    Field(json_schema_extra={"minLength": 1, "maxLength": MAX_CHARACTERS, "pattern": r"\S"}),
    AfterValidator(_check_text),
]
Texts = Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS)]
UncheckedTexts = Annotated[list[str], Field(min_length=1, max_length=MAX_TEXTS)]
"""For protocols that can report the error of a single text: see `predict_each`."""


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


OneOrMoreTexts = Annotated[Texts, BeforeValidator(_as_list, json_schema_input_type=Text | Texts)]

Outcome: TypeAlias = Prediction | TextError


class ModelPath(BaseModel):
    model: Annotated[str, Field(examples=["sluice-sentiment-minilm"])]


class VersionPath(ModelPath):
    version: Annotated[str, Field(examples=["9680a671e92c"])]


def served_name(card: ModelCard) -> str:
    """Return the last part of the model's name, which is one path segment."""
    return card.name.rpartition("/")[2]


def check_model(card: ModelCard, name: str, version: str | None = None) -> None:
    """Raise Problem 404 unless `name` and `version` are those of the served model."""
    if name not in (card.name, served_name(card)) or version not in (None, card.revision):
        raise Problem(404, "No such model, or not in that version; GET /models lists what is served.")


async def is_ready(request: web.Request) -> bool:
    """Return whether a prediction would be answered now. With a full journal it would not, even in a ready pod."""
    state, _ = await request.app[READINESS].report()
    return state != "failed" and request.app[PREDICTIONS].can_record


async def predict_all(request: web.Request, texts: Sequence[str]) -> list[Prediction]:
    """Return one prediction per text. Raises ScoringFailed if any text cannot be scored."""
    predictions = []
    for answer in await request.app[PREDICTIONS].answer(_metadata(request), texts, all_or_none=True):
        if isinstance(answer, ScoringFailed):
            raise answer
        predictions.append(answer)
    return predictions


async def predict_each(request: web.Request, texts: Sequence[str]) -> list[Outcome]:
    """Return a prediction or an error per text. An invalid text is neither scored nor recorded."""
    errors = [text_error(text) for text in texts]
    valid = [text for text, error in zip(texts, errors, strict=True) if error is None]
    answers = iter(await request.app[PREDICTIONS].answer(_metadata(request), valid) if valid else ())
    return [
        _outcome(next(answers)) if error is None else TextError(title="Invalid text", detail=error) for error in errors
    ]


def _outcome(answer: Prediction | ScoringFailed) -> Outcome:
    return SCORING_FAILED if isinstance(answer, ScoringFailed) else answer


def _metadata(request: web.Request) -> RequestMetadata:
    """Describe the request. The edge rewrites X-Forwarded-For, so its first address is the client's."""
    ctx = context(request)
    forwarded = request.headers.get("X-Forwarded-For", "").partition(",")[0].strip()
    return RequestMetadata(
        route=route_of(request),
        request_id=ctx.request_id,
        trace_id=ctx.trace_id,
        client=request.app[CLIENT_HASHER](forwarded or request.remote),
        started_s=request.app[PREDICTIONS].now(),
        deadline_s=ctx.deadline_s,
    )
