from structlog.testing import capture_logs

from edge_limiter.server.connection_limits import ConnectionLimiter, SlowReaders


class Reader:
    def __init__(self, client: bytes | None = b"a") -> None:
        self.client = client
        self.is_aborted = False

    def abort(self) -> None:
        self.is_aborted = True


def test_connection_limiter__one_client_gets_half_and_then_only_its_share() -> None:
    reasons: list[str] = []
    limiter = ConnectionLimiter(20, reasons.append)
    assert sum(limiter.acquire(b"crowd") for _ in range(20)) == 10
    assert [limiter.acquire(b"a") for _ in range(3)] == [True, True, False]
    assert limiter.acquire(b"b")
    assert set(reasons) == {"share"}


def test_connection_limiter__proxy_without_a_client_gets_all() -> None:
    reasons: list[str] = []
    limiter = ConnectionLimiter(20, reasons.append)
    assert sum(limiter.acquire(None) for _ in range(30)) == 20
    assert set(reasons) == {"full"}


def test_connection_limiter__released_connection_is_free_for_all_and_for_its_client() -> None:
    limiter = ConnectionLimiter(20)
    for _ in range(16):
        assert limiter.acquire(None)
    for _ in range(3):
        assert [limiter.acquire(b"a") for _ in range(3)] == [True, True, False]
        limiter.release(b"a")
        limiter.release(b"a")
    assert [limiter.acquire(None) for _ in range(5)] == [True] * 4 + [False]
    limiter.release(None)
    assert [limiter.acquire(None), limiter.acquire(None)] == [True, False]


def test_connection_limiter__refusals_are_logged_once_until_most_are_free() -> None:
    limiter = ConnectionLimiter(20)
    with capture_logs() as logs:
        for _ in range(15):
            limiter.acquire(b"crowd")
        assert len(logs) == 1
        for _ in range(2):
            limiter.release(b"crowd")
        for _ in range(5):
            limiter.acquire(b"crowd")
        assert [line["reason"] for line in logs] == ["share", "share"]


def test_slow_readers__over_the_limit__the_longest_waiting_is_closed() -> None:
    reasons: list[str] = []
    slow = SlowReaders(100, reasons.append)
    readers = [Reader() for _ in range(4)]
    for reader in readers:
        slow.add(reader, 40)
    assert [reader.is_aborted for reader in readers] == [True, True, False, False]
    assert (slow.held_bytes, reasons) == (80, ["unread"] * 2)


def test_slow_readers__client_with_most_unread_bytes_loses_its_own_connections() -> None:
    slow, other = SlowReaders(100), Reader(b"other")
    slow.add(other, 20)
    flood = [Reader(b"flood") for _ in range(9)]
    for reader in flood:
        slow.add(reader, 20)
    assert not other.is_aborted
    assert [reader.is_aborted for reader in flood] == 5 * [True] + 4 * [False]


def test_slow_readers__connection_that_reads_again_is_forgotten() -> None:
    slow, first, second = SlowReaders(100), Reader(), Reader()
    slow.add(first, 60)
    slow.add(second, 40)
    slow.remove(first)
    slow.add(first, 61)
    assert (first.is_aborted, second.is_aborted) == (False, True)
    slow.remove(first)
    slow.remove(first)
    assert slow.held_bytes == 0
