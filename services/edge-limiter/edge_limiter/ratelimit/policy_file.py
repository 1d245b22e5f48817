"""Read EDGE_POLICY_FILE: policies as TOML, validated as a whole and read again when the content changes."""

import asyncio
import tomllib
from pathlib import Path
from typing import Annotated, Final, Literal

import structlog
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from edge_limiter.ratelimit.identity import parse_network
from edge_limiter.ratelimit.policy import Policy, PolicyError
from edge_limiter.ratelimit.policy_set import PolicySet, Rule

log = structlog.get_logger()

POLL_S: Final = 1.0
MAX_BYTES: Final = 1 << 20


def _check_star(path: str) -> str:
    if path.endswith("*") and not path.endswith("/*"):
        raise ValueError("* must follow a /, as in /metrics/*")
    return path


def _check_network(cidr: str) -> str:
    parse_network(cidr)
    return cidr


Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
Method = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
Pattern = Annotated[str, Field(pattern=r"^/[A-Za-z0-9._~{}/-]*\*?$"), AfterValidator(_check_star)]
Cidr = Annotated[str, AfterValidator(_check_network)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""SHA-256 of an API key: `printf %s KEY | sha256sum`."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class PolicyModel(_Model):
    """One `[[policies]]` table. A path may hold `{any}` segments and end in `/*`; no methods means all methods."""

    name: Name
    paths: Annotated[list[Pattern], Field(min_length=1)]
    methods: list[Method] = []
    limit: Annotated[int, Field(ge=1)]
    window_s: Annotated[int, Field(ge=1, le=86_400)]
    identity: Literal["ip", "api-key"] = "ip"
    cost: Annotated[int, Field(ge=1, le=1_000)] = 1
    on_store_error: Literal["local", "open", "closed"] = "local"
    mode: Literal["enforce", "shadow"] = "enforce"
    exempt: list[Cidr] = []
    block: list[Cidr] = []
    keys: list[Digest] = []

    @model_validator(mode="after")
    def _check_keys(self) -> "PolicyModel":
        if (self.identity == "api-key") != bool(self.keys):
            raise ValueError('identity = "api-key" and a list of keys belong together')
        return self

    @model_validator(mode="after")
    def _check_cost(self) -> "PolicyModel":
        if self.cost > self.limit:
            raise ValueError("cost is above limit, so no request would ever pass")
        return self


class PolicyFile(_Model):
    """The whole file."""

    policies: list[PolicyModel]

    @field_validator("policies")
    @classmethod
    def _check_names(cls, value: list[PolicyModel]) -> list[PolicyModel]:
        names = [policy.name for policy in value]
        if len(set(names)) < len(names):
            raise ValueError("two policies have the same name")
        return value


def read_policies(path: Path) -> tuple[Rule, ...]:
    """Return the rules of a file. Raises PolicyError with one line that says what is wrong and where."""
    return parse_policies(_read(path))


def parse_policies(content: bytes) -> tuple[Rule, ...]:
    """Return the rules of a file's content. Raises PolicyError."""
    if len(content) > MAX_BYTES:
        raise PolicyError("larger than 1 MiB")
    try:
        file = PolicyFile.model_validate(tomllib.loads(content.decode()))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise PolicyError(f"{place}: {first['msg']}") from error
    except (ValueError, RecursionError) as error:
        raise PolicyError(f"not TOML: {error}") from error
    return tuple(_rule(model) for model in file.policies)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise PolicyError(f"cannot be read: {error.strerror}") from error


def _rule(model: PolicyModel) -> Rule:
    return Rule(
        policy=Policy(model.name, model.limit, model.window_s, model.on_store_error),
        paths=tuple(model.paths),
        methods=frozenset(model.methods),
        identity=model.identity,
        cost=model.cost,
        is_shadow=model.mode == "shadow",
        exempt=tuple(map(parse_network, model.exempt)),
        block=tuple(map(parse_network, model.block)),
        keys=frozenset(map(bytes.fromhex, model.keys)),
    )


class PolicyWatch:
    """Replaces the rules when the file's content changes. A wrong file is logged once, and earlier rules stay."""

    def __init__(self, path: Path, policies: PolicySet) -> None:
        self._path = path
        self._policies = policies
        self._seen: bytes | None = None
        self._reason = ""

    async def run(self) -> None:
        """Look once a second until cancelled."""
        while True:
            await asyncio.sleep(POLL_S)
            await self.look()

    async def look(self) -> None:
        try:
            content = await asyncio.to_thread(_read, self._path)
            if content == self._seen:
                return
            self._seen = content
            rules = await asyncio.to_thread(parse_policies, content)
            if rules != self._policies.rules:
                self._policies.replace(rules)
                log.info("policies replaced", policies=[rule.policy.name for rule in rules])
            self._reason = ""
        except PolicyError as error:
            if str(error) != self._reason:
                log.error("policy file rejected, earlier policies stay in force", reason=str(error))
            self._reason = str(error)
