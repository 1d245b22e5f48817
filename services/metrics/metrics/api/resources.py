"""What the handlers share: the components they call, deadlines, and problems for invalid fields."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal

from aiohttp import web

from common.http.app import context
from common.http.problems import FieldError, Problem
from metrics.alerting.rule_store import ThresholdStore
from metrics.alerting.store import AlertStore
from metrics.errors import InvalidField
from metrics.query.aggregate import Aggregates
from metrics.query.broadcast import AggregateBroadcaster
from metrics.query.feedback import FeedbackStore
from metrics.query.predictions import Predictions
from metrics.query.rollups import Rollups
from metrics.query.shared import SharedAggregates


@dataclass(frozen=True, slots=True)
class Resources:
    """The components that handlers use, from start-up to shutdown."""

    rollups: Rollups
    aggregates: Aggregates
    shared: SharedAggregates
    thresholds: ThresholdStore
    alerts: AlertStore
    predictions: Predictions
    feedback: FeedbackStore
    live: AggregateBroadcaster


RESOURCES: Final = web.AppKey("resources", Resources)


def deadline(request: web.Request) -> asyncio.Timeout:
    """Raise TimeoutError at the client's deadline."""
    return asyncio.timeout(max(0.0, context(request).remaining_s(time.monotonic())))


def invalid_field(error: InvalidField, location: Literal["body", "query"]) -> Problem:
    return Problem(
        422,
        "The request is well-formed but not valid.",
        title="Invalid request",
        errors=[FieldError(location=location, field=error.field, message=error.message)],
    )


@contextmanager
def query_errors() -> Iterator[None]:
    """Turn InvalidField into a problem that names the query parameter."""
    try:
        yield
    except InvalidField as error:
        raise invalid_field(error, "query") from error
