import pytest

from edge_limiter.proxy.admin import Admin, NoAdmin

WITH_TOKEN = Admin("s3cret", is_loopback=False)


@pytest.mark.parametrize("header", ["Bearer s3cret", "bearer s3cret", "BEARER  s3cret "])
def test_right_token__passes(header: str) -> None:
    WITH_TOKEN.check({"authorization": header, "host": "edge.example"})


@pytest.mark.parametrize(
    "header", [None, "", "s3cret", "Basic s3cret", "Bearer", "Bearer wrong", "Bearer \udcff", "Bearer é"]
)
def test_wrong_token__is_refused(header: str | None) -> None:
    with pytest.raises(NoAdmin, match="Send the admin token"):
        WITH_TOKEN.check({"host": "edge.example"} | ({} if header is None else {"authorization": header}))


def test_token_beyond_ascii__is_known_by_its_bytes() -> None:
    Admin("clé", is_loopback=False).check({"authorization": "Bearer " + "clé".encode().decode("latin-1")})


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:8000", "127.8.9.10:80", "[::1]", "[::1]:8000", "localhost", "LocalHost:8000"]
)
def test_no_token_on_loopback__passes_by_its_names(host: str) -> None:
    Admin("", is_loopback=True).check({"host": host})


@pytest.mark.parametrize(
    "host",
    [None, "", "rebound.example", "rebound.example:8000", "127.0.0.1.rebound.example", "localhost.rebound.example:80"],
)
def test_no_token_on_loopback__is_refused_by_any_other_name(host: str | None) -> None:
    with pytest.raises(NoAdmin, match="direct requests"):
        Admin("", is_loopback=True).check({} if host is None else {"host": host})


@pytest.mark.parametrize("name", ["forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip"])
def test_no_token_on_loopback__is_refused_through_a_proxy(name: str) -> None:
    with pytest.raises(NoAdmin, match="direct requests"):
        Admin("", is_loopback=True).check({"host": "localhost", name: "127.0.0.1"})


def test_no_token_on_a_public_address__is_refused_even_with_an_empty_bearer() -> None:
    with pytest.raises(NoAdmin, match="other machines can reach"):
        Admin("", is_loopback=False).check({"authorization": "Bearer ", "host": "127.0.0.1"})
