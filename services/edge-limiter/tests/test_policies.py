import hashlib

import pytest

from edge_limiter.identity import Client, Clients, parse_network
from edge_limiter.policies import PolicySet, Rule
from edge_limiter.policy import Policy

CLIENT = Clients().of("192.0.2.7")


def rule(name: str, *paths: str, **options: object) -> Rule:
    return Rule(Policy(name, 10, 60), paths, **options)  # type: ignore[arg-type]  # a test's shorthand


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", "/predict", "exact-post"),
        ("GET", "/predict", "exact"),
        ("POST", "/predict/batch", "below"),
        ("POST", "/models/a", "pattern"),
        ("POST", "/models/bundled", "literal"),
        ("GET", "/metrics/count", "everything"),
        ("GET", "/metrics/drift", "reads"),
        ("HEAD", "/metrics/drift", "reads"),
        ("POST", "/metrics/drift", "everything"),
    ],
)
def test_most_specific_rule__wins(method: str, path: str, expected: str) -> None:
    policies = PolicySet(
        {},
        [
            rule("everything", "/*"),
            rule("below", "/predict/*"),
            rule("exact", "/predict"),
            rule("exact-post", "/predict", methods=frozenset({"POST"})),
            rule("pattern", "/models/{model}"),
            rule("literal", "/models/bundled"),
            rule("reads", "/metrics/drift", methods=frozenset({"GET"})),
        ],
    )
    found = policies.rule(method, path, None)
    assert found is not None and found.policy.name == expected


def test_route_that_no_rule_matches__keeps_its_own_policy() -> None:
    policies = PolicySet({"predict": Policy("predict", 60, 60)}, [rule("other", "/metrics/*")])
    found = policies.rule("POST", "/predict", "predict")
    assert found is not None and found.policy.limit == 60
    assert policies.rule("GET", "/dashboard", None) is None


def test_replaced_rules__hold_at_once() -> None:
    policies = PolicySet({}, [rule("old", "/predict")])
    assert policies.rule("POST", "/predict", None) is not None
    policies.replace([])
    assert policies.rule("POST", "/predict", None) is None


def test_known_key__is_counted_by_its_digest_and_any_other_by_address() -> None:
    digest = hashlib.sha256(b"k1").digest()
    by_key = rule("keys", "/", identity="api-key", keys=frozenset({digest}))
    assert by_key.bucket(CLIENT, {"x-api-key": "k1"}) == b"key:" + digest
    assert by_key.bucket(CLIENT, {"authorization": "Bearer k1"}) == b"key:" + digest
    assert by_key.bucket(CLIENT, {"x-api-key": "made-up"}) == CLIENT.bucket
    assert by_key.bucket(CLIENT, {}) == CLIENT.bucket


def test_key_beyond_ascii__is_known_by_its_bytes() -> None:
    digest = hashlib.sha256("clé".encode()).digest()
    by_key = rule("keys", "/", identity="api-key", keys=frozenset({digest}))
    assert by_key.bucket(CLIENT, {"x-api-key": "clé".encode().decode("latin-1")}) == b"key:" + digest


def test_networks__say_who_is_never_counted_and_who_never_let_in() -> None:
    listed = rule("x", "/", allow=(parse_network("192.0.2.0/24"),), deny=(parse_network("2001:db8::/32"),))
    assert listed.allows(CLIENT) and not listed.denies(CLIENT)
    other: Client = Clients().of("2001:db8::1")
    assert listed.denies(other) and not listed.allows(other)
