"""The edge's own pages take no parameters, so methods, queries and headers are generated for them."""

import json
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse
from typing import Final

import pytest
from api.test_schemathesis import SEED
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from system import System

EXAMPLES: Final = 1_000
PAGES: Final = ("/", "/health", "/openapi.json", "/docs", "/docs/start.js", "/docs/none", "/none")
METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "get", "BREW")
NAMES: Final = (
    *("Accept", "Accept-Encoding", "Authorization", "Content-Type", "Cookie", "Expect", "If-Modified-Since"),
    *("If-None-Match", "Range", "X-Forwarded-For", "X-Request-ID", "X-Request-Timeout-Ms", "traceparent", "X-Unknown"),
)
VISIBLE: Final = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=60)
LIKELY: Final = st.sampled_from(
    ("", "*", "*/*", "gzip", "text/markdown", "bytes=0-1", "0", "-1", "1", "9" * 30, "a, b")
)
HEADERS: Final = st.dictionaries(st.sampled_from(NAMES), LIKELY | VISIBLE, max_size=6)
QUERY: Final = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="#"), max_size=20)
TAKEN: Final = {200, 304}
REFUSED: Final = {400, 404, 405, 413, 415, 417, 431, 501}


@pytest.fixture
def ask(system: System) -> Iterator[HTTPConnection]:
    connection = HTTPConnection("127.0.0.1", system.port_base, timeout=30)
    yield connection
    connection.close()


@seed(int(SEED))
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(path=st.sampled_from(PAGES), method=st.sampled_from(METHODS), query=QUERY, headers=HEADERS)
def test_any_request__is_answered_or_refused_with_a_reason(
    ask: HTTPConnection, path: str, method: str, query: str, headers: dict[str, str]
) -> None:
    ask.request(method, f"{path}?{query}" if query else path, headers=headers)
    response = ask.getresponse()
    body = response.read()
    ask.close()
    assert response.status in TAKEN | REFUSED, (response.status, body)
    if response.status in REFUSED and method != "HEAD":
        assert is_problem(response, body), body


def is_problem(response: HTTPResponse, body: bytes) -> bool:
    found = json.loads(body)
    return (
        response.headers["Content-Type"] == "application/problem+json"
        and found["status"] == response.status
        and found["request_id"] == response.headers["X-Request-ID"]
    )
