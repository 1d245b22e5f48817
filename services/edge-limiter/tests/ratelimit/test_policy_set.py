import hashlib

import pytest

from edge_limiter.ratelimit.identity import Client, Clients, parse_network
from edge_limiter.ratelimit.policy import Policy
from edge_limiter.ratelimit.policy_set import PolicySet, Rule, digest_of

CLIENT = Clients().of("192.0.2.7")
K1 = hashlib.sha256(b"k1").digest()


def rule(name: str, *paths: str, **options: object) -> Rule:
    return Rule(Policy(name, 10, 60), paths, **options)  # type: ignore[arg-type]  # a test's shorthand


def found_name(policies: PolicySet, method: str, path: str, default: str | None = None, key: str = "") -> str | None:
    enforced, _ = policies.find(method, path, default, CLIENT, {"x-api-key": key})
    return None if enforced is None else enforced.rule.policy.name


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
    assert found_name(policies, method, path) == expected


def test_route_without_a_matching_rule__keeps_its_default() -> None:
    policies = PolicySet({"predict": Policy("predict", 60, 60)}, [rule("other", "/metrics/*")])
    assert found_name(policies, "POST", "/predict", "predict") == "predict"
    assert found_name(policies, "GET", "/dashboard") is None


def test_replaced_rules__apply_at_once() -> None:
    policies = PolicySet({}, [rule("old", "/predict")])
    assert found_name(policies, "POST", "/predict") == "old"
    policies.replace([])
    assert found_name(policies, "POST", "/predict") is None


@pytest.mark.parametrize("fields", [{"x-api-key": "k1"}, {"authorization": "Bearer k1"}])
def test_known_key__is_counted_by_its_digest(fields: dict[str, str]) -> None:
    by_key = rule("keys", "/", identity="api-key", keys=frozenset({K1}))
    assert PolicySet({}, [by_key]).find("GET", "/", None, CLIENT, fields) == ((by_key, b"key:" + K1), ())


def test_key_beyond_ascii__is_compared_by_its_bytes() -> None:
    assert digest_of("clé".encode().decode("latin-1")) == hashlib.sha256("clé".encode()).digest()


@pytest.mark.parametrize(
    ("key", "expected"), [("k1", "partners"), ("k2", "friends"), ("unknown", "below"), ("", "below")]
)
def test_request_without_a_key_of_the_rule__falls_through_to_the_next(key: str, expected: str) -> None:
    k2 = hashlib.sha256(b"k2").digest()
    policies = PolicySet(
        {},
        [
            rule("below", "/predict/*"),
            rule("partners", "/predict", identity="api-key", keys=frozenset({K1})),
            rule("friends", "/predict", identity="api-key", keys=frozenset({k2})),
        ],
    )
    assert found_name(policies, "POST", "/predict", key=key) == expected


def test_request_without_a_key_of_any_rule__gets_the_default() -> None:
    by_key = rule("partners", "/predict", identity="api-key", keys=frozenset({K1}))
    policies = PolicySet({"predict": Policy("predict", 60, 60)}, [by_key])
    assert found_name(policies, "POST", "/predict", "predict", "unknown") == "predict"


def test_exempt_and_blocked_networks__match_their_addresses_only() -> None:
    listed = rule("x", "/", exempt=(parse_network("192.0.2.0/24"),), block=(parse_network("2001:db8::/32"),))
    assert listed.exempts(CLIENT) and not listed.blocks(CLIENT)
    other: Client = Clients().of("2001:db8::1")
    assert listed.blocks(other) and not listed.exempts(other)
