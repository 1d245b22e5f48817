"""EDGE_POLICY_FILE: policies as YAML, validated as a whole, read again when the file changes.

A file that is wrong changes nothing: the policies before it stay, and the log says once why. At the start it stops
the start, because nobody would notice limits that are not there.
"""

import asyncio
import zlib
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import structlog
import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from edge_limiter.identity import parse_network
from edge_limiter.policies import PolicySet, Rule
from edge_limiter.policy import Policy, PolicyError

log = structlog.get_logger()

POLL_S: Final = 1.0
MAX_BYTES: Final = 1 << 20

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
Method = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""SHA-256 of an API key: `printf %s KEY | sha256sum`."""


def _ends_plainly(path: str) -> str:
    if path.endswith("*") and not path.endswith("/*"):
        raise ValueError("* stands alone after the last /, as in /metrics/*")
    return path


Pattern = Annotated[str, Field(pattern=r"^/[A-Za-z0-9._~{}/-]*\*?$"), AfterValidator(_ends_plainly)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Match(_Model):
    """Paths may hold `{any}` segments and end in `/*` for what is below; no methods means all, GET means HEAD too."""

    paths: Annotated[list[Pattern], Field(min_length=1)]
    methods: list[Method] = []


class PolicyModel(_Model):
    """One policy of the file."""

    name: Name
    match: Match
    limit: Annotated[int, Field(ge=1)]
    window_s: Annotated[int, Field(ge=1, le=86_400)]
    identity: Literal["ip", "api-key"] = "ip"
    cost: Annotated[int, Field(ge=1, le=1_000)] = 1
    on_store_error: Literal["local", "open", "closed"] = "local"
    mode: Literal["enforce", "shadow"] = "enforce"
    allow: list[str] = []
    deny: list[str] = []
    keys: list[Digest] = []

    @field_validator("allow", "deny")
    @classmethod
    def _are_networks(cls, value: list[str]) -> list[str]:
        for cidr in value:
            parse_network(cidr)
        return value

    @model_validator(mode="after")
    def _has_keys_to_count_by(self) -> "PolicyModel":
        if (self.identity == "api-key") != bool(self.keys):
            raise ValueError("identity api-key and a list of keys belong together")
        return self

    @model_validator(mode="after")
    def _lets_anything_pass(self) -> "PolicyModel":
        if self.cost > self.limit:
            raise ValueError("cost is above limit: no request would ever pass")
        return self


class PolicyFile(_Model):
    """The whole file."""

    policies: list[PolicyModel]

    @field_validator("policies")
    @classmethod
    def _have_names_of_their_own(cls, value: list[PolicyModel]) -> list[PolicyModel]:
        names = [policy.name for policy in value]
        if len(set(names)) < len(names):
            raise ValueError("two policies have the same name")
        return value


def parse_policies(text: bytes) -> tuple[Rule, ...]:
    """The rules of a file. Raises PolicyError with one line that says what is wrong and where."""
    if len(text) > MAX_BYTES:
        raise PolicyError("the file is larger than 1 MiB")
    try:
        file = PolicyFile.model_validate(_load(text))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise PolicyError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    return tuple(_rule(model) for model in file.policies)


class _Loader(yaml.SafeLoader):
    """Refuses a key that a mapping has twice, of which YAML would keep the last without a word."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise PolicyError(f"line {key.start_mark.line + 1}: {key.value} is there twice")
            seen.add(key.value)
        return node


def _load(text: bytes) -> object:
    try:
        return yaml.load(text, _Loader)
    except PolicyError:
        raise
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise PolicyError(f"not YAML{f', line {mark.line + 1}' if mark else ''}") from error
    except RecursionError as error:
        raise PolicyError("nested too deeply") from error
    except Exception as error:  # what YAML takes for a date or a number and Python does not: PyYAML lets it through
        raise PolicyError(f"not YAML: {error}") from error


def _rule(model: PolicyModel) -> Rule:
    settings = model.model_dump_json(exclude={"match"}).encode()
    policy = Policy(model.name, model.limit, model.window_s, model.on_store_error, version=zlib.crc32(settings))
    return Rule(
        policy=policy,
        paths=tuple(model.match.paths),
        methods=frozenset(model.match.methods),
        identity=model.identity,
        cost=model.cost,
        is_shadow=model.mode == "shadow",
        allow=tuple(parse_network(cidr) for cidr in model.allow),
        deny=tuple(parse_network(cidr) for cidr in model.deny),
        keys=frozenset(bytes.fromhex(key) for key in model.keys),
    )


def read_policies(path: Path) -> tuple[Rule, ...]:
    """Raises PolicyError."""
    try:
        return parse_policies(path.read_bytes())
    except OSError as error:
        raise PolicyError(f"cannot be read: {error.strerror}") from error


class PolicyWatch:
    """Replaces the rules of `policies` when the file's content changes."""

    def __init__(self, path: Path, policies: PolicySet) -> None:
        self._path = path
        self._policies = policies
        self._seen: Any = ()  # nothing: since the start has read it, it may have changed
        self._complaint = ""

    async def run(self) -> None:
        """Look once a second until cancelled."""
        while True:
            await asyncio.sleep(POLL_S)
            await self.look()

    async def look(self) -> None:
        """Read the file if it is not the one seen last."""
        stamp = await asyncio.to_thread(self._stamp)
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            rules = await asyncio.to_thread(read_policies, self._path)
            if rules == self._policies.rules and not self._complaint:
                return
            self._policies.replace(rules)
        except PolicyError as error:
            if str(error) != self._complaint:
                log.error("the policy file is wrong: the policies before it stay", reason=str(error))
            self._complaint = str(error)
            if isinstance(error.__cause__, OSError):
                self._seen = ()  # the file need not change for being read after all
            return
        self._complaint = ""
        log.info("policies replaced", policies=[rule.policy.name for rule in rules])

    def _stamp(self) -> tuple[int, int, int] | None:
        """Changes with the file, also when a mounted ConfigMap swaps it for another."""
        try:
            stat = self._path.stat()
        except OSError:
            return None
        return stat.st_ino, stat.st_mtime_ns, stat.st_size
