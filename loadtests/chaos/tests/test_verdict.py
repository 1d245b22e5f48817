from dataclasses import replace

import pytest

from chaos.answers import Answer
from chaos.faults import Action, Fault, Target
from chaos.gemini import FORGOTTEN_S, PER_MINUTE, Call, flown_twice, over_quota
from chaos.harm import Done
from chaos.system.watch import Life, Sample, life_of
from chaos.verdict import (
    Evidence,
    Finding,
    availability,
    documents,
    drained,
    gemini,
    leaks,
    recovery,
    shed,
    shown,
    unexplained,
)
from chaos.windows import Span


def answer(at_s: float, status: int | None, path: str = "/predict", detail: str = "", fault: str = "") -> Answer:
    return Answer("id", path, "192.0.2.1", 1, at_s, at_s + 0.01, status, detail=detail, fault=fault)


def done(action: Action, target: Target, start_s: float, recovery_s: float | None = 1.0, wrong: str = "") -> Done:
    return Done(Fault(start_s, action, target, 1.0), Span(start_s, start_s + 1), recovery_s, 10.0, wrong=wrong)


def test_failure__is_explained_by_what_its_path_needs_and_by_nothing_else() -> None:
    evidence = Evidence([answer(5.5, 502), answer(9, 200), answer(9, 429)], [done("kill", "inference", 5)])
    assert availability(evidence) == []
    for other in ("metrics", "analyst", "postgres", "valkey"):
        assert availability(Evidence([answer(5.5, 502)], [done("kill", other, 5)]))
    assert availability(Evidence([answer(8, None)], [done("kill", "edge-limiter", 5)]))  # recovered at 7


def test_full_journal__explains_a_503_while_redis_is_away_only() -> None:
    refused = answer(5.5, 503, detail="Predictions can't be put on record now.")
    assert availability(Evidence([refused], [done("fill", "valkey", 5)])) == []
    assert availability(Evidence([refused], [done("kill", "metrics", 5)]))
    assert availability(Evidence([answer(5.5, 503, detail="full")], [done("fill", "valkey", 5)]))


@pytest.mark.parametrize(
    "busy", ["More texts are waiting than can be scored in time.", "The inference service is full."]
)
def test_busy_machine__may_shed_load_and_nothing_else(busy: str) -> None:
    assert availability(Evidence([answer(5, 503, detail=busy)])) == []
    assert availability(Evidence([answer(5, 502, detail=busy)]))
    assert availability(Evidence([answer(5, 504)]))
    assert availability(Evidence([answer(5, 504)], slowness=lambda _: 3.5)) == []
    assert availability(Evidence([answer(5, 500)], slowness=lambda _: 3.5))


def test_load_shed_in_calm__is_bounded() -> None:
    busy = answer(5, 503, detail="More texts are waiting than can be scored in time.")
    one_in_100, two_in_100 = [busy] + [answer(5, 200)] * 99, [busy] * 2 + [answer(5, 200)] * 98
    assert shed(Evidence(one_in_100)) == []
    assert shed(Evidence(two_in_100))[0].startswith("2 of 100 predictions")
    assert shed(Evidence(two_in_100, slowness=lambda _: 2.0)) == []
    assert shed(Evidence(two_in_100, [done("kill", "metrics", 5)])) == []
    assert shed(Evidence(two_in_100, [done("kill", "metrics", 20)]))
    assert shed(Evidence([busy, *[answer(5, 200, path="/metrics/count")] * 99]))  # only predictions can be


def test_edge_asked_to_stop__breaks_no_request_that_it_took() -> None:
    broken = answer(5.5, None, detail="ServerDisconnectedError")
    nobody = answer(5.5, None, detail="ClientConnectorError")
    restart, kill = done("restart", "edge-limiter", 5), done("kill", "edge-limiter", 5)
    assert drained(Evidence([broken, nobody], [restart])) == [
        "/predict id: ServerDisconnectedError as the edge was asked to stop"
    ]
    assert drained(Evidence([nobody], [restart])) == []
    assert drained(Evidence([broken], [kill])) == []
    assert drained(Evidence([broken], [restart, done("stop", "inference", 5)])) == []


def test_fault_that_goes_on__explains_too() -> None:
    evidence = Evidence([answer(5.5, None)], current=[(Span(5, float("inf")), "edge-limiter")])
    assert availability(evidence) == []


def test_recovery__must_come_in_time_and_a_journal_must_have_been_full() -> None:
    assert recovery(Evidence([], [done("stop", "metrics", 5)])).broken == []
    late = done("stop", "metrics", 5, 10.1)
    assert recovery(Evidence([], [late])).broken
    assert recovery(Evidence([], [replace(late, slowness=2.0)])).broken == []  # the machine was twice as slow
    assert recovery(Evidence([], [replace(late, recovery_s=30.1, slowness=2.9)])).broken
    assert recovery(Evidence([], [done("fill", "valkey", 5, wrong="THE JOURNAL WAS NOT FILLED")])).broken


def test_fault_from_which_nothing_recovers__is_broken_on_any_machine() -> None:
    for slowness in (1.0, 3.0, 50.0):
        assert recovery(Evidence([], [replace(done("stop", "metrics", 5, None), slowness=slowness)])).broken


def test_run_with_too_little_evidence__is_inconclusive() -> None:
    fine, starved = done("stop", "metrics", 5), replace(done("stop", "metrics", 5, 30.1), slowness=8.0)
    absent = replace(fine, missed="it does not run")
    assert recovery(Evidence([], [starved] + [fine] * 4)) == Finding(
        [], "5 faults, 1 inconclusive; longest, s: stop 30.1", ()
    )
    found = recovery(Evidence([], [starved] + [fine] * 3))
    assert (found.broken, len(found.inconclusive)) == ([], 1)
    assert recovery(Evidence([], [fine] * 3, [absent])).inconclusive == [str(absent)]
    assert recovery(Evidence([], [replace(fine, slowness=8.0)])).inconclusive == ()  # in time nevertheless


def test_edge_that_loses_its_store_without_a_fault__is_counted() -> None:
    evidence = Evidence([], [done("cut", "postgres", 5)], degraded=[Span(5.5, 6), Span(20, 21)])
    assert unexplained(evidence) == 1
    assert evidence.rule().bound(Span(19, 29)) == 2 * evidence.rule().limit


def test_window_within_an_outage_by_the_edges_log__holds_one_limit() -> None:
    """The fault lasts longer than the outage in the edge's log and may contain a switch."""
    rule = Evidence([], [done("hang", "postgres", 0, 30.0)], degraded=[Span(1, 12)]).rule()
    assert rule.bound(Span(1.5, 11.5)) == rule.limit
    assert rule.bound(Span(5, 15)) == 2 * rule.limit


def test_answer_with_a_fault__is_named() -> None:
    assert documents(Evidence([answer(1, 502, fault="502 without a problem document"), answer(2, 200)])) == [
        "/predict id: 502 without a problem document"
    ]


def test_shown__distinguishes_broken_from_inconclusive() -> None:
    assert "BROKEN (9)" in shown("name", Finding(["line"] * 9, inconclusive=["open"]))[0]
    assert "inconclusive" in shown("name", Finding([], inconclusive=["open"]))[0]
    assert "holds" in shown("name", Finding([]))[0]


def samples(rss_mib: list[float], fds: int = 10, tasks: int = 5) -> list[Sample]:
    return [Sample(20.0 + 4 * n, 1, each, fds + n, tasks) for n, each in enumerate(rss_mib)]


def test_life__is_compared_from_warm_up_to_end() -> None:
    flat = life_of("edge", samples([100.0] * 12), born_s=0)
    assert flat is not None and not flat.leak
    grown = life_of("edge", samples([100.0] * 6 + [200.0] * 6), born_s=0)
    assert grown is not None and leaks([grown], ["edge"]).broken == ["edge in 64 s: RSS 100 to 200 MiB"]


def test_process_without_a_comparable_life__is_named() -> None:
    life = life_of("edge", samples([100.0] * 12), born_s=0)
    assert life is not None
    assert leaks([life], ["edge", "metrics"]).inconclusive == ["metrics was not seen in calm for 40 s of one life"]
    assert leaks([life], ["edge"]).inconclusive == []


def test_short_life__is_not_compared() -> None:
    assert life_of("edge", samples([100.0] * 5), born_s=0) is None
    assert life_of("edge", samples([100.0] * 12), born_s=60) is None


def test_descriptors_and_tasks__leak_too() -> None:
    first = Sample(0, 1, 50, 20, 10)
    assert "descriptors" in Life("edge", 60, first, first._replace(fds=65)).leak
    assert not Life("edge", 60, first, first._replace(fds=64)).leak  # connections of many waiting clients
    assert "tasks" in Life("edge", 60, first, first._replace(tasks=40)).leak


def calls(*times: float, step: str | int = "ok") -> list[Call]:
    return [Call(at_s, step, is_repair=False) for at_s in times]


def test_quota__may_not_be_exceeded_but_by_what_redis_forgot_or_the_analyst_held() -> None:
    full = calls(*(float(n) for n in range(PER_MINUTE)))
    assert over_quota(full, [], []) == ""
    more = [*full, *calls(30)]
    assert over_quota(more, [], [])
    assert over_quota(more, [PER_MINUTE - 1 + FORGOTTEN_S / 2], []) == ""
    assert over_quota(more, [], [Span(29, 31)]) == ""
    assert over_quota([*full, *calls(60.5)], [], []) == ""
    assert over_quota([*full, *calls(29.5, 30)], [], [Span(29, 31)])  # it had one slot


def test_quota__is_excused_by_no_other_disturbance() -> None:
    more = calls(*(10.0 * n for n in range(PER_MINUTE)), 55)
    for one in (done("kill", "analyst", 54), done("restart", "analyst", 54), done("hang", "valkey", 54)):
        assert "granted" in gemini(Evidence([], [one], calls=more))[0]
    assert gemini(Evidence([], [done("kill", "valkey", 51)], calls=more)) == []
    assert gemini(Evidence([], [done("stop", "analyst", 54)], calls=more)) == []
    well_later = replace(done("stop", "analyst", 52), recovery_s=20.0)  # paused until 53
    assert "granted" in gemini(Evidence([], [well_later], calls=more))[0]


def test_second_flight__is_found_unless_a_repair_a_failure_or_a_fault_explains_it() -> None:
    assert flown_twice(calls(1, 12, 23), []) == ""
    assert flown_twice(calls(1, 5), [])
    assert flown_twice(calls(1, 5), [Span(3, 4)]) == ""
    assert flown_twice([*calls(1), Call(2, "ok", is_repair=True), *calls(3)], []) == ""
    assert flown_twice([*calls(1, step=503), *calls(2)], []) == ""
