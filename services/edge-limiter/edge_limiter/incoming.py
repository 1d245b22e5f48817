"""What comes in on one client connection: reads requests through llhttp, and counts and times what is sent for them.

Refuses what is malformed, too large or too slow, and reads nothing after it: it becomes a `Request` with a refusal, so
that its problem document, its metrics and its log line are made where all others are.
"""

from collections import deque
from collections.abc import Callable
from typing import Literal

import httptools

from edge_limiter import limits
from edge_limiter.acceptance import Unacceptable
from edge_limiter.body import BodyBuffer, ClientGone, Room
from edge_limiter.request import Request, read_head
from edge_limiter.wire import body_head

Stage = Literal["between", "head", "offer", "body", "ended"]
"""What is awaited. `offer`: a body whose head offered another protocol, so that the parser takes it for none."""


class Incoming:
    """`requests` are those whose turn to be answered has not come; of the last one the body may be on its way.

    `since` is when the client's own turn began: to send what `stage` says, or to take what it was sent.
    """

    def __init__(
        self,
        peer: str,
        room: Room,
        now: float,
        hold: Callable[[], None],
        release: Callable[[], None],
        go_on: Callable[[], None],
    ) -> None:
        """`hold` and `release` stop and restart what is read; `go_on` tells a client that waits to send its body."""
        self._peer = peer
        self._room = room
        self._hold = hold
        self._release = release
        self._go_on = go_on
        self._parser = httptools.HttpRequestParser(self)
        self.requests: deque[Request] = deque()
        self._receiving: Request | None = None
        self.stage: Stage = "between"
        self.since = now
        self._url = b""
        self._lines: list[tuple[bytes, bytes]] = []
        self.held_bytes = 0
        self._body_bytes = self._timed_bytes = 0  # of the body that is received, and how many of them before `since`
        self.bytes_in = 0
        # How many had come, as exactly as reads tell:
        self._read_from = 0  # before the last read
        self._head_from = 0  # before that in which the head began
        self._stage_from = 0  # by the end of that in which the stage began
        self._bare_from = 0  # by the end of that with the last byte of the body

    @property
    def is_idle(self) -> bool:
        """Whether nothing of a request is here."""
        return self.stage == "between" and not self.requests

    def read(self, data: bytes, now: float) -> Unacceptable | None:
        """Take what came. Returns why what is being received has to be refused, if it has."""
        refusal = None
        self._read_from = self.bytes_in
        self.bytes_in += len(data)
        try:
            while data:
                try:
                    self._parser.feed_data(data)
                    break
                except httptools.HttpParserUpgrade as offer:  # not taken up: what follows is HTTP as before
                    data = data[offer.args[0] :]
                    if self.stage == "offer":
                        self._read_on()
        except httptools.HttpParserError as error:
            cause = error.__context__
            refusal = cause if isinstance(cause, Unacceptable) else Unacceptable(*limits.MALFORMED)
        if self._stage_from == self.bytes_in:  # it began just now
            self.since = now
        elif refusal is None and self.bytes_in - self._stage_from > limits.OVERHEAD_BYTES:
            refusal = self._overhead()
        return refusal

    def pass_over(self, count: int, now: float) -> None:
        """A whole request came, and was answered without being read."""
        self.bytes_in += count
        self._stage_from, self.since = self.bytes_in, now

    def skip(self, data: bytes) -> int:
        """Throw away what came. Returns how many bytes have come in vain."""
        self.bytes_in += len(data)
        return self.bytes_in - self._stage_from

    def late(self, now: float, patience: limits.Patience) -> Unacceptable | None:
        """Why the head or the body that is on its way has to be refused, if it takes too long."""
        took_s = now - self.since
        if self.stage == "head":
            return Unacceptable(*limits.LATE_HEAD) if took_s > patience.head_s else None
        if took_s > patience.body_s:
            if self._body_bytes - self._timed_bytes < patience.min_rate * took_s:
                return Unacceptable(*limits.SLOW_BODY)
            self.restart(now)
        return None

    def restart(self, now: float) -> None:
        """The head or the body that is on its way has all its time from now on."""
        if self.stage in ("head", "body"):
            self.since, self._timed_bytes = now, self._body_bytes

    def refuse(self, refusal: Unacceptable) -> None:
        """Refuse what is being received, and read nothing after it."""
        receiving, self._receiving = self._receiving, None
        if receiving is not None:
            receiving.body.fail(refusal)
        elif self.stage != "ended":
            body = BodyBuffer(self._hold, self._release)
            self.requests.append(Request("", "", "1.1", [], {}, self._peer, body, refusal))
        self.stage, self._stage_from = "ended", self.bytes_in

    def stop(self) -> None:
        """Read nothing any more, and answer nothing that waits."""
        self.stage, self._stage_from = "ended", self.bytes_in
        self._receiving = None
        self.requests.clear()
        self.free_room()

    def forget(self) -> None:
        """The client has gone. Let go of what it sent, and of all that holds us: else it waits for the collector."""
        if self._receiving is not None:
            self._receiving.body.fail(ClientGone())
        for request in self.requests:
            request.body.drop()
            request.body.free_room()
        self.stop()
        self._url, self._lines = b"", []
        del self._parser, self._hold, self._release, self._go_on

    def take_room(self) -> bool:
        """Heads that are not whole and requests whose turn has not come take room, as bodies do. False without any."""
        fields = len(self._lines) + sum(len(request.headers) for request in self.requests)
        objects_bytes = limits.REQUEST_BYTES * len(self.requests) + limits.FIELD_BYTES * fields
        self._hold_bytes(self.bytes_in - self._head_from + objects_bytes)
        return self._room.held_bytes <= self._room.limit_bytes

    def free_room(self) -> None:
        self._hold_bytes(0)

    def _hold_bytes(self, count: int) -> None:
        self._room.held_bytes += count - self.held_bytes
        self.held_bytes = count

    def _overhead(self) -> Unacceptable | None:
        """Nobody may send without end what is no body: the parser keeps a line until it is whole."""
        if self.stage == "head":
            return Unacceptable(*limits.LARGE_HEAD)
        bare_bytes = self.bytes_in - self._bare_from
        overhead_bytes = self.bytes_in - self._stage_from - 8 * self._body_bytes
        if self.stage == "body" and max(bare_bytes, overhead_bytes) > limits.OVERHEAD_BYTES:
            return Unacceptable(*limits.MALFORMED)
        return None

    def _read_on(self) -> None:
        """Go on with a parser that takes what comes for the body: the other one takes it for an offered protocol."""
        assert self._receiving is not None
        self._parser = httptools.HttpRequestParser(self)
        self._parser.feed_data(body_head(self._receiving.length, self._receiving.keeps_alive))
        self.stage = "body"

    # what the parser calls

    def on_message_begin(self) -> None:
        if self.stage == "offer":
            return
        if len(self.requests) >= limits.MAX_PIPELINED:
            self.stage = "ended"  # they are answered, and the connection is closed: the client may ask again
            raise Unacceptable(*limits.MALFORMED)
        self.stage, self._stage_from = "head", self.bytes_in
        self._head_from, self._url, self._lines = self._read_from, b"", []

    def on_url(self, part: bytes) -> None:
        if self.stage == "head":
            self._url += part
            if len(self._url) > limits.MAX_TARGET_BYTES:
                raise Unacceptable(*limits.LONG_TARGET)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.stage == "head":  # else it is a trailer: it ends here
            if len(self._lines) == limits.MAX_HEADERS:
                raise Unacceptable(*limits.LARGE_HEAD)
            self._lines.append((name, value))

    def on_headers_complete(self) -> None:
        if self.stage == "offer":
            return
        parser, at_most_bytes = self._parser, self.bytes_in - self._head_from
        lines, self._lines = self._lines, []
        method, version = parser.get_method().decode("latin-1"), parser.get_http_version()
        headers, fields, refusal = read_head(method, version, lines, at_most_bytes)
        body = BodyBuffer(self._hold, self._release, self._go_on if "expect" in fields else None, self._room)
        target = self._url.decode("latin-1")
        self._receiving = request = Request(method, target, version, headers, fields, self._peer, body, refusal)
        request.keeps_alive = parser.should_keep_alive() and not request.is_1_0
        self.stage = "offer" if "upgrade" in fields and request.has_body and parser.should_upgrade() else "body"
        self._stage_from = self._bare_from = self.bytes_in
        self._body_bytes = self._timed_bytes = 0
        self.requests.append(request)
        if refusal is not None:
            raise refusal

    def on_body(self, piece: bytes) -> None:
        assert self._receiving is not None
        self._bare_from = self.bytes_in
        self._body_bytes += len(piece)
        self._receiving.body.feed(piece)

    def on_message_complete(self) -> None:
        if self.stage == "offer":
            return
        assert self._receiving is not None
        self._receiving.body.finish()
        self._receiving = None
        self.stage, self._stage_from = "between", self.bytes_in
