"""What is refused is counted, and on record unless the client's own haste was to blame."""

import math
from collections.abc import Sequence
from typing import Any, Final, cast

import pytest
from prometheus_client import CollectorRegistry

from inference.answering import Answering
from inference.engine import ModelCard
from inference.instruments import Instruments
from inference.jobs import Overloaded
from inference.recording import Caller, Records
from inference.scoring import Answer, Scorer

CARD: Final = ModelCard("fake", "r1", ("NEGATIVE", "POSITIVE"), 64, "fake", "cpu")


class BusyScorer:
    """Has room only for what may wait for `wait_s`."""

    card = CARD

    def __init__(self, wait_s: float) -> None:
        self._wait_s = wait_s

    def retry_after_s(self, _texts: Sequence[str], deadline_s: float) -> float | None:
        return 1.0 if deadline_s <= self._wait_s else None

    async def score(self, _texts: Sequence[str], _deadline_s: float) -> list[Answer]:
        raise Overloaded(1.0)


@pytest.mark.parametrize(
    ("is_hurried", "wait_s", "on_record"),
    [
        (True, 5.0, 0),  # more time would have helped
        (True, math.inf, 2),  # the service is full
        (False, 5.0, 2),
    ],
)
async def test_text_for_which_there_is_no_room__is_on_record_unless_more_time_would_have_helped(
    is_hurried: bool, wait_s: float, on_record: int
) -> None:
    registry, written = CollectorRegistry(), list[Any]()
    records = Records(written.extend, CARD, store_text=False, wall_us=lambda: 1)
    answering = Answering(cast(Scorer, BusyScorer(wait_s)), records, Instruments(registry), lambda: 0.0)
    caller = Caller("/predict", "id", None, None, 0.0, 1.0, is_hurried)
    with pytest.raises(Overloaded):
        await answering.answer(caller, ["good"])
    assert answering.refused_now("/predict", "good", 1.0, is_hurried=is_hurried) == 1.0
    records.flush()
    assert sum(event.n for event in written) == on_record
    reason = "overloaded" if on_record else "deadline"
    assert registry.get_sample_value("sluice_inference_refusals_total", {"reason": reason}) == 2
