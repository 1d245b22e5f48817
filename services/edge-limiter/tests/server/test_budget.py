import pytest
from structlog.testing import capture_logs

from edge_limiter.server.budget import Budget


@pytest.mark.parametrize(("client", "taken", "reason"), [(b"crowd", 10, "share"), (None, 20, "full")])
def test_budget__one_client_gets_half_and_a_proxy_all(client: bytes | None, taken: int, reason: str) -> None:
    reasons: list[str] = []
    budget = Budget("connections", 20, reasons.append)
    assert sum(budget.take(client) for _ in range(30)) == taken
    assert set(reasons) == {reason}
    assert budget.take(b"other") == (client is not None)


def test_budget__past_half__each_client_gets_its_share_again_and_again() -> None:
    budget = Budget("connections", 20)
    assert budget.take(None, 16)
    for _ in range(3):
        assert [budget.take(b"a") for _ in range(3)] == [True, True, False]
        budget.give_back(b"a", 2)
    assert [budget.take(None) for _ in range(5)] == [True] * 4 + [False]
    budget.give_back(None)
    assert [budget.take(None), budget.take(None)] == [True, False]


def test_budget__refusals_are_logged_once_until_most_is_free() -> None:
    budget = Budget("connections", 20)
    with capture_logs() as logs:
        for _ in range(15):
            budget.take(b"crowd")
        assert len(logs) == 1
        budget.give_back(b"crowd", 2)
        for _ in range(5):
            budget.take(b"crowd")
    assert [(line["event"], line["reason"]) for line in logs] == [("connections refused", "share")] * 2
