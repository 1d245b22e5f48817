import asyncio

from chaos.windows import Span
from chaos.yardstick import Yardstick


def test_slowness__is_the_mean_around_a_time_and_at_least_one() -> None:
    yardstick = Yardstick()
    yardstick.measured = [(0.0, 0.9), (100.0, 2.0), (102.0, 3.0), (200.0, 50.0)]
    assert yardstick.slowness(Span(101.0, 101.5)) == 2.5
    assert yardstick.slowness(Span(0.0, 1.0)) == 1.0
    assert yardstick.slowness(Span(200.0, 201.0)) == 50.0
    assert yardstick.slowness(Span(50.0, 51.0)) == 1.0


async def test_yardstick__waits_no_less_than_it_works() -> None:
    yardstick = Yardstick()
    running = asyncio.create_task(yardstick.run())
    async with asyncio.timeout(30):
        while not yardstick.measured:
            await asyncio.sleep(0.01)
    running.cancel()
    assert yardstick.measured[0][1] > 0.9
