from edge_limiter.upstream.exchange import answer_headers, onward_headers


def test_hop_by_hop_headers__end_here() -> None:
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
    assert onward_headers(sent, "close, X-Secret") == [("Accept", "*/*")]


def test_claims_about_the_client__end_here() -> None:
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
    assert onward_headers(sent, None) == [("Authorization", "Bearer x"), ("X-Many", "1"), ("X-Many", "2")]


def test_answer__keeps_what_is_end_to_end() -> None:
    answer = [
        ("Content-Encoding", "gzip"),
        ("Set-Cookie", "a=1"),
        ("Set-Cookie", "b=2"),
        ("Connection", "X-Hop"),
        ("X-Hop", "1"),
        ("X-Request-ID", "upstream's"),
        ("Transfer-Encoding", "chunked"),
    ]
    assert answer_headers(answer) == [("Content-Encoding", "gzip"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]
