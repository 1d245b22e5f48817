"""Request ids, traces and deadlines: malformed values are replaced, and the time left only shrinks."""

import re
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.http.context import RequestContext, read_context, uuid7

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


def read(headers: dict[str, str], now: float = 100.0) -> RequestContext:
    return read_context(headers, now, default_s=10.0, maximum_s=60.0)


@given(st.integers(0, 2**48 * 10**6 - 1))
def test_uuid7__has_the_layout_of_rfc_9562(now_ns: int) -> None:
    value = uuid.UUID(uuid7(lambda: now_ns))
    assert (value.version, value.variant) == (7, uuid.RFC_4122)
    assert value.int >> 80 == now_ns // 10**6
    assert str(value) == str(value).lower()


@given(st.integers(0, 10**18), st.integers(250, 10**12))
def test_uuid7__is_ordered_by_time_even_within_a_millisecond(now_ns: int, later_ns: int) -> None:
    assert uuid7(lambda: now_ns) < uuid7(lambda: now_ns + later_ns)


@pytest.mark.parametrize("given_id", ["a", "A-1._:z", "x" * 128])
def test_wellformed_request_id__is_kept(given_id: str) -> None:
    assert read({"X-Request-ID": given_id}).request_id == given_id


@pytest.mark.parametrize(
    "given_id", ["", " a", "a b", "x" * 129, "a\n", "é", "1٣", "a\x00", '"><script>', "a;DROP", "\udcff", "a,b"]
)
def test_hostile_request_id__is_replaced(given_id: str) -> None:
    assert re.fullmatch(r"[0-9a-f-]{36}", read({"X-Request-ID": given_id}).request_id)


def test_traceparent__is_read_and_passed_on() -> None:
    context = read({"traceparent": PARENT})
    assert context.trace_id == TRACE
    assert context.outgoing_headers(100.0)["traceparent"] == PARENT


@pytest.mark.parametrize(
    "parent",
    [
        "",
        PARENT.upper(),
        PARENT + "\n",
        PARENT[:-1],
        PARENT + "-extra",
        f"ff{PARENT[2:]}",
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}٣-b7ad6b7169203331-01",
    ],
)
def test_malformed_traceparent__is_dropped(parent: str) -> None:
    context = read({"traceparent": parent})
    assert (context.trace_id, context.traceparent) == (None, None)
    assert "traceparent" not in context.outgoing_headers(100.0)


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        ("1500", 1.5),
        ("0", 0.0),
        ("60001", 60.0),
        ("999999999", 60.0),
        ("2147483647", 60.0),  # what some clients mean by no limit
        (str(2**64 - 1), 60.0),
        ("1" * 21, 10.0),
        ("", 10.0),
        ("-1", 10.0),
        ("1e3", 10.0),
        ("1.5", 10.0),
        ("٣", 10.0),
        (" 5", 10.0),
        ("5\n", 10.0),
    ],
)
def test_asked_timeout__is_bounded_or_defaulted(asked: str, seconds: float) -> None:
    assert read({"X-Request-Timeout-Ms": asked}).deadline_s == pytest.approx(100.0 + seconds)


def test_next_hop__gets_the_time_that_is_left() -> None:
    context = read({"X-Request-Timeout-Ms": "5000", "X-Request-ID": "r-1"})
    assert context.outgoing_headers(101.25) == {"X-Request-ID": "r-1", "X-Request-Timeout-Ms": "3750"}
    assert context.outgoing_headers(200.0)["X-Request-Timeout-Ms"] == "1"
    assert context.remaining_s(200.0) < 0
