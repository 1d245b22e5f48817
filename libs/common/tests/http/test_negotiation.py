import pytest

from common.http.openapi import preferred

JSON, CSV, NDJSON = "application/json", "text/csv", "application/x-ndjson"


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        ("", JSON),
        ("*/*", JSON),
        ("text/html", JSON),
        ("text/html, */*;q=0.8", JSON),
        ("text/csv;q=0.1, */*", JSON),
        ("text/csv;q=0.1, application/*", JSON),
        ("text/csv;q=0.9, */*;q=0.1", CSV),
        ("text/csv, */*", CSV),
        ("text/*", CSV),
        ("*/*, text/csv", CSV),
        ("application/json;q=0, */*", CSV),
        ("text/*;q=0, application/json;q=0.5, */*", NDJSON),
        ("text/csv, application/json", CSV),
        ("application/json, text/csv", JSON),
        ("text/csv;q=0", JSON),
        ("TEXT/CSV; charset=utf-8; Q=0.7, application/json;q=0.5", CSV),
        ("text/csv;q=lots, application/x-ndjson;q=2", JSON),
        ("text/csv;q=0.1, application/json;q=0.5, text/csv", JSON),
        (",,;;q=,", JSON),
    ],
)
def test_format__is_the_one_that_the_client_wants_most(accept: str, media: str) -> None:
    assert preferred([accept], (JSON, CSV, NDJSON)) == media


def test_lines__count_as_one() -> None:
    assert preferred(["text/csv;q=0.1", "*/*"], (JSON, CSV)) == JSON
    assert preferred([], (JSON, CSV)) == JSON
