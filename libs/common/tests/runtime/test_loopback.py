import pytest

from common.runtime.loopback import is_localhost_header, is_loopback


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("::1", True), ("LocalHost", True), ("0.0.0.0", False), ("::", False), ("edge", False)],
)
def test_loopback__is_recognised(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_host_header__names_this_machine_or_not() -> None:
    for host in ("127.0.0.1", "127.0.0.1:8002", "127.8.9.10:80", "[::1]", "[::1]:8002", "localhost", "LocalHost:8002"):
        assert is_localhost_header(host)
    for host in ("", "rebound.example:8002", "127.0.0.1.rebound.example", "localhost.rebound.example:80"):
        assert not is_localhost_header(host)
