import pytest

from common.runtime.loopback import is_localhost_header, is_loopback


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("::1", True), ("LocalHost", True), ("0.0.0.0", False), ("::", False), ("edge", False)],
)
def test_loopback__is_recognised(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:8002", "127.8.9.10:80", "[::1]", "[::1]:8002", "localhost", "LocalHost:8002"]
)
def test_this_machine__has_these_names(host: str) -> None:
    assert is_localhost_header(host)


@pytest.mark.parametrize(
    "host", ["", "rebound.example", "rebound.example:8002", "127.0.0.1.rebound.example", "localhost.rebound.example:80"]
)
def test_this_machine__has_no_other_names(host: str) -> None:
    assert not is_localhost_header(host)
