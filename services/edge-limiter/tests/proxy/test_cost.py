import json
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from edge_limiter.proxy.cost import TOO_MANY, cost_of
from edge_limiter.proxy.routes import Cost


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
        ("input", {"input": ["a", "b"]}, 2),
        ("instances", {"instances": ["a", "b"]}, 2),
        ("tensor", {"inputs": [{"shape": [3], "data": ["a", "b", "c"]}]}, 3),
        ("tensor", {"inputs": [{"shape": [3, 2], "data": ["a"]}]}, 6),
        ("tensor", {"inputs": [{"shape": [0]}]}, 1),
        ("tensor", {"inputs": [{"shape": ["x"]}]}, 1),
        ("tensor", {"inputs": [{"shape": [3]}, {"shape": [3]}]}, 1),  # inference takes one input
        ("tensor", {"inputs": "abc"}, 1),
        ("tensor", {"inputs": 3}, 1),
    ],
)
def test_list__costs_one_per_text(kind: Cost, document: object, cost: int) -> None:
    assert cost_of(kind, json.dumps(document).encode()) == cost


def test_binary_tensor__is_counted_by_the_json_before_it() -> None:
    head = json.dumps({"inputs": [{"shape": [3]}]}).encode()
    assert cost_of("tensor", head + b"\x01\x00\x00\x00a" * 3, str(len(head))) == 3


def test_length_of_a_tensors_json__cuts_nothing_off_a_list_of_texts() -> None:
    assert cost_of("texts", b'{"texts": ["a", "b", "c"]}', "1") == 3


@pytest.mark.parametrize("length", ["", "-1", "1e3", "９", "9" * 10])
def test_length_that_inference_refuses__costs_one(length: str) -> None:
    assert cost_of("tensor", b"{}\x00", length) == 1


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"1"])
def test_unreadable_body__costs_one(body: bytes) -> None:
    assert cost_of("texts", body) == 1


@pytest.mark.parametrize("rest", [b'"x": ' + b"1" * 4_301 + b"}", b'"x": "\\ud800"}', b"} {}", b'"x": ' + b"[" * 300])
def test_body_that_inference_cannot_read_either__costs_one(rest: bytes) -> None:
    body = b'{"texts": ["a", "b"], ' + rest
    assert cost_of("texts", body) == 1
    with pytest.raises(ValidationError, match="Invalid JSON"):
        TypeAdapter(dict[str, Any]).validate_json(body, strict=True)


def test_integer_of_as_many_digits_as_inference_reads__does_not_hide_the_list() -> None:
    assert cost_of("texts", b'{"texts": ["a", "b"], "x": ' + b"1" * 4_300 + b"}") == 2


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("texts", b'{"x": ' + b"[" * 100_000),
        ("texts", b'{"x": [' + b"{}," * 40_000 + b"0]}"),
        ("texts", b'{"x": {' + b'"":1,' * 70_000 + b'"":1}}'),
        ("texts", b'{"texts": ["' + b"[" * 70_000 + b'"' + b',"\\"["' * 5_000 + b"]}"),
        ("texts", b'{"texts": ["\\"\\\\"' + b",[]" * 40_000 + b"]}"),
    ],
)
def test_body_that_would_take_long__is_not_looked_through(kind: Cost, body: bytes) -> None:
    assert cost_of(kind, body) == TOO_MANY


def test_largest_list_that_inference_takes__is_counted_whatever_is_in_its_texts() -> None:
    text = '{"level": "info", "at": "12:00:01", "tags": ["a", "b"], "path": "\\\\[3]\\\\"}\n' * 128
    for texts in ([text[:10_000]] * 64, ["[" * 10_000] * 64, [':"\\' * 3_000] * 64):
        assert cost_of("texts", json.dumps({"texts": texts}).encode()) == 64


@pytest.mark.parametrize(
    ("kind", "document"),
    [
        ("texts", {"texts": ["a"] * 100_000}),
        ("tensor", {"inputs": [{"shape": [1 << 20, 1 << 20]}]}),
    ],
)
def test_more_than_any_limit__is_counted_no_further(kind: Cost, document: object) -> None:
    assert cost_of(kind, json.dumps(document).encode()) == TOO_MANY
