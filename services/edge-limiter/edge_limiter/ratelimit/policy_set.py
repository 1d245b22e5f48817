"""Choose the rule that limits a request: the most specific one that applies, otherwise the route's default."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from edge_limiter.ratelimit.identity import Client, Network, parse_address
from edge_limiter.ratelimit.policy import Policy, PolicyError

Identity = Literal["ip", "api-key"]

_MEMO: Final = 4_096
_MAX_CACHED_PATH: Final = 64


@dataclass(frozen=True, slots=True)
class Rule:
    """A policy and what it applies to. `cost` multiplies the request's units. An `is_shadow` rule never refuses."""

    policy: Policy
    paths: tuple[str, ...] = ()
    methods: frozenset[str] = frozenset()
    identity: Identity = "ip"
    cost: int = 1
    is_shadow: bool = False
    exempt: tuple[Network, ...] = ()
    block: tuple[Network, ...] = ()
    keys: frozenset[bytes] = frozenset()

    def takes(self, method: str) -> bool:
        """Return whether the rule is for this method. HEAD is a GET without a body."""
        return not self.methods or method in self.methods or (method == "HEAD" and "GET" in self.methods)

    def exempts(self, client: Client) -> bool:
        """Return whether this client is not counted."""
        return _holds(self.exempt, client)

    def blocks(self, client: Client) -> bool:
        """Return whether this client is always refused."""
        return _holds(self.block, client)

    def bucket(self, client: Client, key_digest: bytes) -> bytes | None:
        """Return what the client is counted under, or None if the rule is for other API keys."""
        if self.identity == "ip":
            return client.bucket
        return key_bucket(key_digest) if key_digest in self.keys else None


class Counted(NamedTuple):
    """A rule that applies to a request, and what the client is counted under."""

    rule: Rule
    bucket: bytes


class Found(NamedTuple):
    """The rule that limits a request, if any, and the shadow rules that are evaluated with it."""

    enforced: Counted | None
    shadows: tuple[Counted, ...]


class PolicySet:
    """The rules in force; `defaults` are the routes' own policies by name."""

    def __init__(self, defaults: Mapping[str, Policy], rules: Iterable[Rule] = ()) -> None:
        self._defaults = {name: Rule(policy) for name, policy in defaults.items()}
        self.replace(rules)

    def replace(self, rules: Iterable[Rule]) -> None:
        """Replace all rules at once. Raises PolicyError if one has the name of a default.

        Admissions are stored by the name of the policy, so two policies of one name would share their logs.
        """
        rules = tuple(rules)
        for rule in rules:
            if rule.policy.name in self._defaults:
                raise PolicyError(f"{rule.policy.name} is the name of a built-in policy: choose another")
        self.rules = rules
        patterns = [(_compile(path), rule, _rank(path, rule)) for rule in self.rules for path in rule.paths]
        self._patterns = sorted(patterns, key=lambda item: item[2], reverse=True)
        self._found: dict[tuple[str, str, str | None], tuple[Rule, ...]] = {}

    def find(self, method: str, path: str, default: str | None, client: Client, fields: Mapping[str, str]) -> Found:
        """Return the most specific enforcing rule that applies to this request, and every shadow rule that does.

        A rule for API keys applies only to requests that carry one of its keys. The route's default comes last.
        """
        rules = self._matching(method, path, default)
        key_digest = digest_of(api_key(fields)) if any(rule.keys for rule in rules) else b""
        counted = [Counted(rule, bucket) for rule in rules if (bucket := rule.bucket(client, key_digest)) is not None]
        enforced = next((one for one in counted if not one.rule.is_shadow), None)
        return Found(enforced, tuple(one for one in counted if one.rule.is_shadow))

    def _matching(self, method: str, path: str, default: str | None) -> tuple[Rule, ...]:
        """Return the rules for this method and path, most specific first, then the route's default."""
        key = (method, path, default)
        rules = self._found.get(key)
        if rules is None:
            rules = self._search(method, path, default)
            if len(self._found) < _MEMO and len(path) <= _MAX_CACHED_PATH:
                self._found[key] = rules
        return rules

    def _search(self, method: str, path: str, default: str | None) -> tuple[Rule, ...]:
        found = [rule for pattern, rule, _ in self._patterns if rule.takes(method) and pattern.fullmatch(path)]
        if default is not None:
            found.append(self._defaults[default])
        return tuple(dict.fromkeys(found))  # a rule may match by two of its paths


def api_key(fields: Mapping[str, str]) -> str:
    """Return X-API-Key, or the bearer token, or an empty string."""
    key = fields.get("x-api-key", "")
    if key:
        return key
    scheme, _, token = fields.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def digest_of(key: str) -> bytes:
    """Return the SHA-256 digest of an API key's bytes; a header value holds each byte as one character."""
    return hashlib.sha256(key.encode("latin-1", "surrogateescape")).digest()


def key_bucket(digest: bytes) -> bytes:
    """Return the bucket of a key's SHA-256 digest. No address has its prefix."""
    return b"key:" + digest


def _holds(networks: tuple[Network, ...], client: Client) -> bool:
    if not networks:
        return False
    address = parse_address(client.address)
    return any(address in network for network in networks)


def _compile(path: str) -> re.Pattern[str]:
    below = path.endswith("*")
    segments = path.removesuffix("*").removesuffix("/").split("/") if below else path.split("/")
    parts = ("[^/]+" if segment.startswith("{") else re.escape(segment) for segment in segments)
    return re.compile("/".join(parts) + ("(?:/.*)?" if below else ""))


def _rank(path: str, rule: Rule) -> tuple[bool, int, int, bool]:
    """Rank exact paths over prefixes, then deeper, more literal, and method-specific ones."""
    return not path.endswith("*"), path.count("/"), -path.count("{"), bool(rule.methods)
