"""The context of a request: its id, its trace and its deadline."""

import os
import re
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

REQUEST_ID = "X-Request-ID"
TRACEPARENT = "traceparent"
TIMEOUT_MS = "X-Request-Timeout-Ms"

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)
_TIMEOUT = re.compile(r"[0-9]{1,20}", re.ASCII)


def uuid7(now_ns: Callable[[], int] = time.time_ns) -> str:
    """Return a UUIDv7 (RFC 9562, method 3): 60 bits of time, ordered to 0.25 µs, and 62 random bits."""
    ms, rest_ns = divmod(now_ns(), 1_000_000)
    random = int.from_bytes(os.urandom(8)) >> 2
    return "%08x-%04x-7%03x-%04x-%012x" % (  # noqa: UP031  # a third faster than an f-string, for every request
        ms >> 16, ms & 0xFFFF, (rest_ns << 12) // 1_000_000, 0x8000 | random >> 48, random & 0xFFFF_FFFF_FFFF,
    )  # fmt: skip


class RequestContext(NamedTuple):
    """Identity and deadline of one request, read once on arrival and passed on at each hop."""

    request_id: str
    trace_id: str | None
    traceparent: str | None
    deadline_s: float  # on the clock of `time.monotonic`

    def remaining_s(self, now: float) -> float:
        """Return the seconds left; zero or less after the deadline."""
        return self.deadline_s - now

    def outgoing_headers(self, now: float) -> dict[str, str]:
        """Return the headers for the next hop, with the time that is left."""
        headers = {REQUEST_ID: self.request_id, TIMEOUT_MS: str(max(1, int(self.remaining_s(now) * 1000)))}
        if self.traceparent:
            headers[TRACEPARENT] = self.traceparent
        return headers


def is_timeout(value: str) -> bool:
    """Whether a value of X-Request-Timeout-Ms is valid."""
    return _TIMEOUT.fullmatch(value) is not None


def read_context(headers: Mapping[str, str], now: float, *, default_s: float, maximum_s: float) -> RequestContext:
    """Read id, trace and deadline from `headers`. Absent or malformed values get a new id or the default.

    A client may set more or less time than `default_s` with X-Request-Timeout-Ms, up to `maximum_s`.
    """
    request_id = headers.get(REQUEST_ID, "")
    if not _REQUEST_ID.fullmatch(request_id):
        request_id = uuid7()
    trace = _TRACEPARENT.fullmatch(headers.get(TRACEPARENT, ""))
    timeout_ms = headers.get(TIMEOUT_MS, "")
    budget_s = int(timeout_ms) / 1000 if is_timeout(timeout_ms) else default_s
    return RequestContext(
        request_id=request_id,
        trace_id=trace.group(1) if trace else None,
        traceparent=trace.group(0) if trace else None,
        deadline_s=now + min(budget_s, maximum_s),
    )
