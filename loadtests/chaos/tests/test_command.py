import argparse
import asyncio

import pytest

from chaos.command import at_least, ended


def test_number_from_the_smallest_on__is_taken() -> None:
    assert at_least(1.0)("1") == 1.0
    assert at_least(1.0)("2.5") == 2.5


@pytest.mark.parametrize("said", ["0.9", "-5", "nan", "inf", "-inf"])
def test_other_number__is_refused(said: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        at_least(1.0)(said)


def test_no_number__is_refused_by_argparse_too() -> None:
    with pytest.raises(ValueError, match="five"):
        at_least(1.0)("five")


async def test_what_ran_beside_and_failed__is_heard_of_at_the_end() -> None:
    async def fails() -> None:
        raise ValueError("blind")

    goes_on, failed = asyncio.create_task(asyncio.Event().wait()), asyncio.create_task(fails())
    await asyncio.wait([failed])
    with pytest.raises(ValueError, match="blind"):
        await ended([goes_on, failed])
    assert goes_on.cancelled()
    await ended([asyncio.create_task(asyncio.Event().wait())])
