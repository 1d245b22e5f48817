import pytest
from structlog.testing import capture_logs

from analyst.llm.state import ModelState
from common.contracts.reports import ModelHealth


@pytest.mark.parametrize(("model", "state"), [(None, "no_key"), ("some-model", "not_asked")])
def test_model_that_was_not_asked__is_no_fault(model: str | None, state: str) -> None:
    seen = ModelState(model)
    assert seen.health == ModelHealth(name=model, state=state)
    assert not seen.is_degraded


@pytest.mark.parametrize(
    ("outcome", "state", "logged"),
    [
        ("not_found", "not_found", 1),
        ("unauthorised", "unauthorised", 1),
        ("invalid", "invalid", 1),
        ("unavailable", "failing", 0),
        ("timeout", "failing", 0),
        ("connection", "failing", 0),
        ("not_connected", "failing", 0),
        ("unknown", "failing", 0),
        ("truncated", "truncated", 1),
    ],
)
def test_fault__shows_until_the_model_answers_and_is_logged_once_if_an_operator_must_mend_it(
    outcome: str, state: str, logged: int
) -> None:
    seen = ModelState("some-model")
    for _ in range(2):
        with capture_logs() as logs:
            for ended in (outcome, "quota", "rate_limited", "cancelled", outcome):
                seen.attempt_ended(ended)
        assert (seen.health.state, seen.is_degraded) == (state, True)
        assert [entry["state"] for entry in logs] == [state] * logged
        seen.attempt_ended("ok")
        assert (seen.health.state, seen.is_degraded) == ("ok", False)
