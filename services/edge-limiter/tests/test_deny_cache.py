from edge_limiter.deny_cache import Denial, DenyCache

KEY = (1, b"client", 1)


def test_denial__holds_until_a_slot_frees_and_no_longer() -> None:
    cache = DenyCache(10)
    cache.put(KEY, Denial(until_s=5.0, free_at_s=5.1))
    assert cache.get(KEY, 4.999) == Denial(5.0, 5.1)
    assert cache.get(KEY, 5.0) is None
    assert len(cache) == 0


def test_another_policy_version_or_cost__is_not_denied() -> None:
    cache = DenyCache(10)
    cache.put(KEY, Denial(5.0, 5.0))
    assert cache.get((2, b"client", 1), 0.0) is None
    assert cache.get((1, b"client", 2), 0.0) is None


def test_full_cache__forgets_the_least_recently_used() -> None:
    cache = DenyCache(2)
    cache.put((1, b"a", 1), Denial(9.0, 9.0))
    cache.put((1, b"b", 1), Denial(9.0, 9.0))
    cache.get((1, b"a", 1), 0.0)
    cache.put((1, b"c", 1), Denial(9.0, 9.0))
    assert cache.get((1, b"a", 1), 0.0)
    assert cache.get((1, b"b", 1), 0.0) is None
