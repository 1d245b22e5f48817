"""The result cache stays within its bytes."""

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from inference.batching.jobs import Scored
from inference.prediction.cache import ResultCache, key_of


def scored(score: float = 0.5) -> Scored:
    return Scored((1 - score, score), 5, False, 0.001, 0.005)


def test_key__depends_on_revision_and_text() -> None:
    assert len({key_of("r1", "a"), key_of("r2", "a"), key_of("r1", "b"), key_of("r1", "a\0")}) == 4


def test_least_recently_used__goes_first() -> None:
    cache = ResultCache(3 * 500)
    for name in (b"a", b"b", b"c"):
        cache.put(name, scored())
    assert cache.get(b"a") is not None
    cache.put(b"d", scored())
    assert [cache.get(name) is not None for name in (b"a", b"b", b"c", b"d")] == [True, False, True, True]


@given(st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c", b"d", b"e"]), st.floats(0, 1)), max_size=50))
def test_cache_size__is_bounded(puts: list[tuple[bytes, float]]) -> None:
    cache = ResultCache(3 * 500)
    for key, score in puts:
        cache.put(key, scored(score))
        assert cache.size_bytes <= 3 * 500
        assert cache.get(key) == scored(score)
    assert len(cache) == min(3, len({key for key, _ in puts}))


def test_accounted_bytes__cover_the_allocated_bytes() -> None:
    cache = ResultCache(1 << 30)
    tracemalloc.start()
    for number in range(20_000):
        cache.put(key_of("r", str(number)), Scored((number / 3, number / 7), 1000 + number, False, number / 9, 0.1))
    real, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 1.0 < cache.size_bytes / real < 1.5
