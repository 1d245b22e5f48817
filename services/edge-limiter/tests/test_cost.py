import json

import pytest

from edge_limiter.cost import TOO_MANY, cost_of
from edge_limiter.routing import Cost


@pytest.mark.parametrize(
    ("kind", "document", "cost"),
    [
        ("one", {"texts": ["a", "b"]}, 1),
        ("texts", {"texts": ["a", "b", "c"]}, 3),
        ("texts", {"texts": []}, 1),
        ("texts", {"texts": "abc"}, 1),
        ("texts", ["a", "b"], 1),
        ("inputs", {"inputs": "one text"}, 1),
        ("inputs", {"inputs": ["a", "b"]}, 2),
        ("tensor", {"inputs": [{"shape": [3], "data": ["a", "b", "c"]}]}, 3),
        ("tensor", {"inputs": [{"shape": [1], "data": ["a", "b", "c"]}]}, 3),
        ("tensor", {"inputs": [{"shape": [3, 2], "data": ["a"]}]}, 6),
        ("tensor", {"inputs": [{"data": [["a", "b"], ["c"]]}, {"data": ["d"]}]}, 4),
        ("tensor", {"inputs": [None, {"shape": ["x"]}]}, 2),
    ],
)
def test_list__costs_one_per_text(kind: Cost, document: object, cost: int) -> None:
    assert cost_of(kind, json.dumps(document).encode()) == cost


def test_binary_tensor__is_counted_by_the_json_before_it() -> None:
    head = json.dumps({"inputs": [{"shape": [3]}]}).encode()
    assert cost_of("tensor", head + b"\x01\x00\x00\x00a" * 3, str(len(head))) == 3


@pytest.mark.parametrize("length", ["", "-1", "1e3", "９", "9" * 10])
def test_length_that_inference_refuses__costs_one(length: str) -> None:
    assert cost_of("tensor", b"{}\x00", length) == 1


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"1"])
def test_unreadable_body__costs_one(body: bytes) -> None:
    assert cost_of("texts", body) == 1


def test_integer_that_python_refuses_to_read__does_not_hide_the_list() -> None:
    assert cost_of("texts", b'{"texts": ["a", "b"], "x": ' + b"1" * 5_000 + b"}") == 2


@pytest.mark.parametrize(
    ("kind", "document"),
    [
        ("texts", {"texts": ["a"] * 100_000}),
        ("tensor", {"inputs": [{"shape": [9] * 100_000}]}),
        ("tensor", {"inputs": [{"shape": [1 << 20, 1 << 20]}]}),
        ("tensor", {"inputs": [{"data": [["a"] * 100] * 1_000}]}),
        ("tensor", {"inputs": [{}] * 100_000}),
    ],
)
def test_more_than_any_limit__is_counted_no_further(kind: Cost, document: object) -> None:
    assert cost_of(kind, json.dumps(document).encode()) == TOO_MANY
