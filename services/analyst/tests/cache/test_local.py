from analyst.cache.local import MAX_KEYS, LocalCache


def test_copy__ends_with_its_time() -> None:
    now_s = 0.0
    near = LocalCache(1.0, lambda: now_s)
    near.keep("key", "report", 3.0)
    now_s = 0.9
    assert near.find("key") == ("report", 3.9)
    now_s = 1.0
    assert near.find("key") is None


def test_no_time__keeps_nothing() -> None:
    near = LocalCache(0.0, lambda: 0.0)
    near.keep("key", "report", 0.0)
    assert near.find("key") is None


def test_many_keys__never_fill_the_memory() -> None:
    near = LocalCache(1.0, lambda: 0.0)
    for number in range(10 * MAX_KEYS):
        near.keep(str(number), "report", 0.0)
    found = [number for number in range(10 * MAX_KEYS) if near.find(str(number))]
    assert 0 < len(found) <= MAX_KEYS
    assert found[-1] == 10 * MAX_KEYS - 1
