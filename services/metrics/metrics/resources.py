"""What the handlers share: the parts they call, the time they have, and how a bad field becomes a problem."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal

from aiohttp import web

from common.http.app import context
from common.http.problems import FieldError, Problem
from metrics.aggregates import Aggregates
from metrics.alert_store import AlertStore
from metrics.errors import InvalidField
from metrics.live import Live
from metrics.predictions import Predictions
from metrics.rollups import Rollups
from metrics.threshold_store import ThresholdStore


@dataclass(frozen=True, slots=True)
class Resources:
    """What the handlers need; it exists from start-up to shutdown."""

    rollups: Rollups
    aggregates: Aggregates
    thresholds: ThresholdStore
    alerts: AlertStore
    predictions: Predictions
    live: Live


RESOURCES: Final = web.AppKey("resources", Resources)


def deadline(request: web.Request) -> asyncio.Timeout:
    """Until the client gives up."""
    return asyncio.timeout(max(0.0, context(request).remaining_s(time.monotonic())))


def unanswerable(error: InvalidField, location: Literal["body", "query"]) -> Problem:
    return Problem(
        422,
        "The request is well-formed but not valid.",
        title="Invalid request",
        errors=[FieldError(location=location, field=error.field, message=error.message)],
    )


@contextmanager
def fields_of_query() -> Iterator[None]:
    """Bad fields are those of the query."""
    try:
        yield
    except InvalidField as error:
        raise unanswerable(error, "query") from error
