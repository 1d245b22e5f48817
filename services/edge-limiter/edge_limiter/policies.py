"""Which policy limits a request, and whom it counts: the most specific rule that matches, else the route's own."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from edge_limiter.identity import Client, Network, parse_address
from edge_limiter.memo import MEMO_LENGTH
from edge_limiter.policy import Policy, PolicyError

Identity = Literal["ip", "api-key"]

_MEMO: Final = 4_096


@dataclass(frozen=True, slots=True)
class Rule:
    """A policy and what it applies to. `cost` multiplies what the request counts; `is_shadow` never refuses."""

    policy: Policy
    paths: tuple[str, ...] = ()
    methods: frozenset[str] = frozenset()
    identity: Identity = "ip"
    cost: int = 1
    is_shadow: bool = False
    allow: tuple[Network, ...] = ()
    deny: tuple[Network, ...] = ()
    keys: frozenset[bytes] = frozenset()

    def takes(self, method: str) -> bool:
        """Whether it is for this method: HEAD is a GET whose answer has no body."""
        return not self.methods or method in self.methods or (method == "HEAD" and "GET" in self.methods)

    def allows(self, client: Client) -> bool:
        """Whether this client is not counted at all."""
        return _holds(self.allow, client)

    def denies(self, client: Client) -> bool:
        """Whether this client is never let in."""
        return _holds(self.deny, client)

    def bucket(self, client: Client, fields: Mapping[str, str]) -> bytes:
        """Under what the client is counted: its API key's digest if that is known, else its address.

        The digest is of the key's bytes as they came: `fields` has each byte as a character.

        A key that nobody issued must not be a bucket: a new one for each request would be a way around the limit.
        """
        if self.identity == "api-key":
            digest = hashlib.sha256(api_key(fields).encode("latin-1", "surrogateescape")).digest()
            if digest in self.keys:
                return key_bucket(digest)
        return client.bucket


class PolicySet:
    """The rules in force; `defaults` are the routes' own policies by name."""

    def __init__(self, defaults: Mapping[str, Policy], rules: Iterable[Rule] = ()) -> None:
        self._defaults = {name: Rule(policy) for name, policy in defaults.items()}
        self.replace(rules)

    def replace(self, rules: Iterable[Rule]) -> None:
        """Put other rules in force, all at once. Raises PolicyError when one has the name of a default.

        Admissions are kept by the name of the policy: under one name, a shorter window would forget for a longer one.
        """
        rules = tuple(rules)
        for rule in rules:
            if rule.policy.name in self._defaults:
                raise PolicyError(f"{rule.policy.name} is the name of a policy that is always there: choose another")
        self.rules = rules
        patterns = [(_compile(path), rule, _rank(path, rule)) for rule in self.rules for path in rule.paths]
        self._patterns = sorted(patterns, key=lambda item: item[2], reverse=True)
        self._found: dict[tuple[str, str, str | None], Rule | None] = {}

    def named(self, name: str) -> Policy | None:
        """A policy in force."""
        for rule in (*self.rules, *self._defaults.values()):
            if rule.policy.name == name:
                return rule.policy
        return None

    def rule(self, method: str, path: str, default: str | None) -> Rule | None:
        """The most specific rule for this request; else the default of its route, if that has one."""
        if not self._patterns:
            return self._defaults[default] if default is not None else None
        key = (method, path, default)
        if key in self._found:
            return self._found[key]
        found = self._search(method, path, default)
        if len(self._found) < _MEMO and len(path) <= MEMO_LENGTH:
            self._found[key] = found
        return found

    def _search(self, method: str, path: str, default: str | None) -> Rule | None:
        for pattern, rule, _ in self._patterns:
            if rule.takes(method) and pattern.fullmatch(path):
                return rule
        return self._defaults[default] if default is not None else None


def api_key(fields: Mapping[str, str]) -> str:
    """X-API-Key, else the bearer token; empty without either."""
    key = fields.get("x-api-key", "")
    if key:
        return key
    scheme, _, token = fields.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def key_bucket(digest: bytes) -> bytes:
    """A key's SHA-256 digest, with a prefix that no address has."""
    return b"key:" + digest


def _holds(networks: tuple[Network, ...], client: Client) -> bool:
    address = parse_address(client.address)
    return any(address in network for network in networks)


def _compile(path: str) -> re.Pattern[str]:
    below = path.endswith("*")
    segments = path.removesuffix("*").removesuffix("/").split("/") if below else path.split("/")
    parts = ("[^/]+" if segment.startswith("{") else re.escape(segment) for segment in segments)
    return re.compile("/".join(parts) + ("(?:/.*)?" if below else ""))


def _rank(path: str, rule: Rule) -> tuple[bool, int, int, bool]:
    """Exact before prefix, deeper before shallower, literal before pattern, named methods before all."""
    return not path.endswith("*"), path.count("/"), -path.count("{"), bool(rule.methods)
