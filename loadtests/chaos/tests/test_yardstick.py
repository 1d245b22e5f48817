import asyncio
from contextlib import suppress

import pytest

from chaos.system.starvation import Use, burn, others_share
from chaos.system.yardstick import Measured, Yardstick
from chaos.windows import Span


def measured(at_s: float, waited: float, others: float = 0.99) -> Measured:
    return Measured(at_s, waited, others)


def test_slowness__is_the_mean_around_a_time_and_at_least_one() -> None:
    yardstick = Yardstick()
    yardstick.measured = [measured(0.0, 0.9), measured(100.0, 2.0), measured(102.0, 3.0), measured(200.0, 50.0)]
    assert yardstick.slowness(Span(101.0, 101.5)) == 2.5
    assert yardstick.slowness(Span(0.0, 1.0)) == 1.0
    assert yardstick.slowness(Span(200.0, 201.0)) == 50.0
    assert yardstick.slowness(Span(50.0, 51.0)) == 1.0


@pytest.mark.parametrize(("others", "slowness"), [(0.0, 1.0), (0.5, 2.0), (0.95, 8.0), (1.0, 8.0)])
def test_wait_that_other_programs_do_not_explain__is_no_slowness(others: float, slowness: float) -> None:
    """A spinning service slows everything down but is no excuse."""
    assert measured(0.0, 8.0, others).slowness == slowness


def test_others_share__leaves_out_what_the_tree_took() -> None:
    before = Use(10.0, 100.0, 50.0)
    assert others_share(before, Use(12.0, 103.0, 52.0), cores=2) == 0.25
    assert others_share(before, Use(12.0, 103.0, 53.5), cores=2) == 0.0
    assert others_share(before, Use(12.0, 103.0, 40.0), cores=2) == 0.75  # an orphan's time is lost


def test_burning__takes_no_less_time_than_it_uses() -> None:
    assert burn() > 0.99


async def test_yardstick__measures_from_a_process_of_its_own() -> None:
    yardstick = Yardstick()
    running = asyncio.create_task(yardstick.run())
    async with asyncio.timeout(30):
        while not yardstick.measured:
            await asyncio.sleep(0.01)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert yardstick.measured[0].waited > 0.9 and 0 <= yardstick.measured[0].others <= 1
