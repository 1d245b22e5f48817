from edge_limiter.proxy.forward import forwardable_request_headers, forwardable_response_headers


def test_request__hop_by_hop_headers_are_dropped() -> None:
    sent = [
        ("Accept", "*/*"),
        ("Connection", "close, X-Secret"),
        ("X-Secret", "1"),
        ("Keep-Alive", "5"),
        ("TE", "trailers"),
        ("Transfer-Encoding", "chunked"),
        ("Proxy-Authorization", "Basic x"),
        ("Upgrade", "h2c"),
        ("Content-Length", "3"),
        ("Expect", "100-continue"),
    ]
    assert forwardable_request_headers(sent, "close, X-Secret") == [("Accept", "*/*")]


def test_request__forwarding_headers_from_the_client_are_dropped() -> None:
    sent = [
        ("X-Forwarded-For", "1.1.1.1"),
        ("x-forwarded-proto", "https"),
        ("X-Real-IP", "1.1.1.1"),
        ("Forwarded", "for=1.1.1.1"),
        ("X-Request-ID", "theirs"),
        ("Authorization", "Bearer x"),
        ("X-Many", "1"),
        ("X-Many", "2"),
    ]
    forwarded = [("Authorization", "Bearer x"), ("X-Many", "1"), ("X-Many", "2")]
    assert forwardable_request_headers(sent, "Keep-Alive") == forwarded


def test_response__end_to_end_headers_are_forwarded() -> None:
    received = [
        ("Content-Encoding", "gzip"),
        ("Set-Cookie", "a=1"),
        ("Set-Cookie", "b=2"),
        ("Connection", "X-Hop"),
        ("X-Hop", "1"),
        ("X-Request-ID", "upstream's"),
        ("Transfer-Encoding", "chunked"),
    ]
    forwarded = [("Content-Encoding", "gzip"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]
    assert forwardable_response_headers(received) == forwarded
