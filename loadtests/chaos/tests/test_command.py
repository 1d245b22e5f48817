import argparse

import pytest

from chaos.command import at_least


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
