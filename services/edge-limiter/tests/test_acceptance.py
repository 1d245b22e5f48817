import pytest

from edge_limiter.acceptance import Unacceptable
from edge_limiter.request import read_head


def check(*headers: tuple[str, str], method: str = "POST", version: str = "1.1", host: str | None = "edge") -> None:
    lines = [*([("Host", host)] if host is not None else []), *headers]
    _, _, refusal = read_head(method, version, [(name.encode(), value.encode()) for name, value in lines], 0)
    if refusal is not None:
        raise refusal


@pytest.mark.parametrize("host", ["edge", "edge:8000", "127.0.0.1:80", "[::1]:8000", "a-b.example"])
def test_ordinary_head__is_taken(host: str) -> None:
    check(("Content-Type", "application/json"), ("Transfer-Encoding", "chunked"), ("X_Custom", "1"), host=host)


@pytest.mark.parametrize("protocol", ["h2c", "TLS/1.0, HTTP/1.1", "websockets"])
def test_offer_of_another_protocol__is_no_reason_to_refuse(protocol: str) -> None:
    check(("Upgrade", protocol), ("Connection", "Upgrade, HTTP2-Settings"), ("HTTP2-Settings", "AAMAAABk"))


def test_http_1_0_without_host__is_taken() -> None:
    check(version="1.0", host=None)


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (501, [("Transfer-Encoding", "gzip, chunked")]),
        (501, [("Transfer-Encoding", "xchunked")]),
        (501, [("Transfer-Encoding", "chunked, identity")]),
        (501, [("Transfer-Encoding", "\x0bchunked")]),
        (400, [("Transfer-Encoding", "chunked"), ("Content-Length", "3")]),
        (501, [("Upgrade", "websocket"), ("Connection", "Upgrade")]),
        (501, [("Upgrade", "h2c, WebSocket")]),
        (501, [("Upgrade", "h2c"), ("Upgrade", "websocket/13")]),
        (400, [("Host", "other")]),
        (400, [("Content-Length", "3"), ("Content-Length", "3")]),
        (400, [("Authorization", "Bearer a"), ("authorization", "Bearer b")]),
        (417, [("Expect", "a-miracle")]),
        (400, [("Content_Length", "3")]),
        (400, [("X_Forwarded_For", "1.1.1.1")]),
        (400, [("x_forwarded-for", "1.1.1.1")]),
        (400, [("TRANSFER_ENCODING", "chunked")]),
    ],
)
def test_ambiguous_head__is_refused(status: int, headers: list[tuple[str, str]]) -> None:
    with pytest.raises(Unacceptable) as refused:
        check(*headers)
    assert refused.value.status == status


@pytest.mark.parametrize("host", [None, "", "a b", "a@b", "a/b", "a:b", "a:123456", "é", "a,b"])
def test_malformed_host__is_refused(host: str | None) -> None:
    with pytest.raises(Unacceptable) as refused:
        check(host=host)
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("method", "version", "status"), [("TRACE", "1.1", 501), ("CONNECT", "1.1", 501), ("GET", "2.0", 505)]
)
def test_other_method_or_version__is_refused(method: str, version: str, status: int) -> None:
    with pytest.raises(Unacceptable) as refused:
        check(method=method, version=version)
    assert refused.value.status == status


def test_transfer_encoding_in_http_1_0__is_refused() -> None:
    with pytest.raises(Unacceptable) as refused:
        check(("Transfer-Encoding", "chunked"), version="1.0")
    assert refused.value.status == 400
