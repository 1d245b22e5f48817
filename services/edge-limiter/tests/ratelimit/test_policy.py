import pytest

from edge_limiter.ratelimit.policy import MAX_LIMIT, Policy, PolicyError


def test_limit_above_what_is_counted_exactly__is_refused_with_the_cure() -> None:
    with pytest.raises(PolicyError, match=r"the same rate in a shorter window is 1000 in 30 s"):
        Policy("predict", 2_000, 60)


def test_largest_limit__is_accepted() -> None:
    assert Policy("predict", MAX_LIMIT, 60).limit == MAX_LIMIT
