from chaos.faults import ALONE, COOL_DOWN_S, WARM_UP_S, combinations, schedule, together


def test_schedule__is_the_same_for_a_seed_and_another_for_another() -> None:
    assert schedule(7, 5) == schedule(7, 5)
    assert schedule(7, 5) != schedule(8, 5)


def test_schedule__keeps_its_warm_up_and_its_calm_end() -> None:
    for seed in range(50):
        faults = schedule(seed, 5)
        assert faults[0].at_s >= WARM_UP_S
        assert faults[-1].at_s < 300 - COOL_DOWN_S
        assert [fault.at_s for fault in faults] == sorted(fault.at_s for fault in faults)


def test_five_minutes__break_every_combination_and_some_together() -> None:
    faults = schedule(7, 5)
    assert {(fault.action, fault.target) for fault in faults} == set(combinations())
    moments = together(faults)
    assert [fault for moment in moments for fault in moment] == faults
    assert {len(moment) for moment in moments} == {1, 2}
    assert all(len({fault.target for fault in moment}) == len(moment) for moment in moments)


def test_edge__is_asked_to_stop_while_nothing_else_breaks() -> None:
    for seed in range(50):
        assert any([(one.action, one.target) for one in moment] == [ALONE] for moment in together(schedule(seed, 5)))


def test_long_schedule__breaks_all_again() -> None:
    faults = schedule(7, 10)
    assert all(sum((fault.action, fault.target) == kind for fault in faults) >= 2 for kind in combinations())
    assert schedule(7, 0.1)  # too short for a calm end, but still one fault
