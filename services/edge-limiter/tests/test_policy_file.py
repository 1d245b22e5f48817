import asyncio
import errno
import hashlib
import os
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from common.service import StartError
from common.settings import load
from edge_limiter.app import LIMITS, create_service
from edge_limiter.policies import PolicySet
from edge_limiter.policy import Policy, PolicyError
from edge_limiter.policy_file import PolicyWatch, parse_policies
from edge_limiter.settings import EdgeSettings

StartEdge = Callable[..., Awaitable[Any]]
StartUpstream = Callable[..., Awaitable[str]]
DIGEST = hashlib.sha256(b"k1").hexdigest()
POLICY = "policies: [{name: few, match: {paths: [/predict], methods: [POST]}, limit: %d, window_s: 60%s}]"


def test_file__becomes_rules() -> None:
    (rule,) = parse_policies((POLICY % (5, ", cost: 2, mode: shadow, allow: [10.0.0.0/8]")).encode())
    assert (rule.policy.name, rule.policy.limit, rule.cost, rule.is_shadow) == ("few", 5, 2, True)
    assert rule.methods == {"POST"} and len(rule.allow) == 1


def test_changed_limit__changes_the_version() -> None:
    (one,), (other,) = (parse_policies((POLICY % (limit, "")).encode()) for limit in (5, 6))
    assert one.policy.version != other.policy.version


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("policies: [", "not YAML, line 1"),
        ("", "valid dictionary"),
        ("polices: []", "policies"),
        (POLICY % (0, ""), "policies.0.limit"),
        (POLICY % (2_000, ""), "1000 in 30 s"),
        (POLICY % (5, ", limt: 3"), "limt"),
        (POLICY % (5, ", deny: [10.0.0.0/33]"), "policies.0.deny"),
        (POLICY % (5, ", identity: api-key"), "belong together"),
        (POLICY % (5, ", identity: api-key, keys: [k1]"), "policies.0.keys"),
        (POLICY % (5, "}, {name: few, match: {paths: [/x]}, limit: 1, window_s: 1"), "same name"),
        ("!!python/object/apply:os.system [true]", "not YAML"),
        ("policies: 2024-13-45", "not YAML: month must be in"),
        ("policies: " + "9" * 5_000, "not YAML: Exceeds the limit"),
        ("policies: !!bool perhaps", "not YAML"),
        (POLICY % (5, ", limit: 6"), "line 1: limit is there twice"),
        (POLICY % (5, "") + "\npolicies: []", "line 2: policies is there twice"),
        (POLICY.replace("/predict", "predict") % (5, ""), "policies.0.match.paths"),
        (POLICY.replace("/predict", '"/predict*"') % (5, ""), r"policies.0.match.paths.0: .*alone after the last /"),
        (POLICY.replace("/predict", '"/metrics/al*"') % (5, ""), r"policies.0.match.paths.0: .*alone after the last /"),
        (POLICY % (5, ", cost: 6"), "policies.0: .*cost is above limit"),
    ],
)
def test_wrong_file__is_refused_with_its_place(text: str, reason: str) -> None:
    with pytest.raises(PolicyError, match=reason):
        parse_policies(text.encode())


def test_key_that_a_merged_mapping_has_too__is_not_there_twice() -> None:
    few = "&few {match: {paths: [/predict]}, limit: 5, window_s: 60, name: few}"
    more = "{<<: *few, name: more, limit: 6}"
    rules = parse_policies(f"policies: [{few}, {more}]".encode())
    assert [(rule.policy.name, rule.policy.limit) for rule in rules] == [("few", 5), ("more", 6)]


async def test_file_that_turns_wrong__keeps_the_old_policies_and_says_so_once(tmp_path: Path) -> None:
    path = tmp_path / "policies.yaml"
    path.write_text(POLICY % (5, ""))
    policies = PolicySet({"predict": Policy("predict", 60, 60)}, parse_policies(path.read_bytes()))
    watch = PolicyWatch(path, policies)
    with capture_logs() as logs:
        for broken in ("policies: [", "policies: [ ", POLICY.replace("few", "predict") % (6, "")):
            path.write_text(broken)
            await watch.look()
    assert [entry["reason"] for entry in logs] == [
        "not YAML, line 1",
        "predict is the name of a policy that is always there: choose another",
    ]
    assert policies.rules[0].policy.limit == 5
    path.write_text(POLICY % (7, ""))
    await watch.look()
    assert policies.rules[0].policy.limit == 7


async def test_changed_file_that_cannot_be_read__is_tried_again_though_it_changes_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who grants the right to read it later changes neither its content nor its time."""

    def refuse(path: Path) -> bytes:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    path = tmp_path / "policies.yaml"
    path.write_text(POLICY % (5, ""))
    policies = PolicySet({}, parse_policies(path.read_bytes()))
    watch = PolicyWatch(path, policies)
    await watch.look()
    path.write_text(POLICY % (70, ""))  # of another size: its time may be the same on a coarse clock
    with capture_logs() as logs, monkeypatch.context() as refusing:
        refusing.setattr(Path, "read_bytes", refuse)
        await watch.look()
        await watch.look()
    assert [entry["reason"] for entry in logs] == ["cannot be read: Permission denied"]
    assert policies.rules[0].policy.limit == 5
    await watch.look()
    assert policies.rules[0].policy.limit == 70


async def test_file_that_changes_while_the_edge_starts__is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "policies.yaml"
    path.write_text(POLICY % (5, ""))
    policies = PolicySet({}, parse_policies(path.read_bytes()))
    path.write_text(POLICY % (6, ""))
    watch = PolicyWatch(path, policies)
    await watch.look()
    assert policies.rules[0].policy.limit == 6


async def test_file_that_says_the_same__replaces_nothing(tmp_path: Path) -> None:
    path = tmp_path / "policies.yaml"
    path.write_text(POLICY % (5, ""))
    rules = parse_policies(path.read_bytes())
    policies = PolicySet({}, rules)
    watch = PolicyWatch(path, policies)
    with capture_logs() as logs:
        await watch.look()
        path.write_text(POLICY % (5, "") + "  # a word")
        await watch.look()
    assert policies.rules is rules and logs == []


@pytest.mark.parametrize("text", ["policies: 1", POLICY.replace("few", "analyze") % (5, "")])
def test_wrong_file_at_the_start__stops_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "policies.yaml"
    path.write_text(text)
    with pytest.raises(StartError, match="EDGE_POLICY_FILE"):
        create_service(
            load(EdgeSettings, {"DATABASE_URL": "postgresql://u:p@127.0.0.1/x", "EDGE_POLICY_FILE": str(path)})
        )


async def fine(_request: web.Request) -> web.Response:
    return web.Response()


async def test_policies_of_a_file__limit_deny_and_are_replaced(
    start_edge: StartEdge, start_upstream: StartUpstream, tmp_path: Path
) -> None:
    path = tmp_path / "policies.yaml"
    path.write_text(POLICY % (2, f", identity: api-key, keys: [{DIGEST}]"))
    edge = await start_edge(
        EDGE_UPSTREAM_INFERENCE=await start_upstream(fine),
        EDGE_POLICY_FILE=str(path),
        EDGE_TRUSTED_PROXIES="127.0.0.1/32",
    )
    assert [await edge.post() for _ in range(3)] == [200] * 3
    assert [await edge.post(headers={"X-API-Key": "k1"}) for _ in range(3)] == [200, 200, 429]
    path.write_text(POLICY % (1, ", deny: [198.51.100.0/24]"))
    while not edge.service.app[LIMITS]._policies.rules[0].deny:
        await edge.post("/models/none")
    assert [await edge.post(headers={"X-Forwarded-For": "203.0.113.1"}) for _ in range(2)] == [200, 429]
    assert await edge.post(headers={"X-Forwarded-For": "198.51.100.1"}) == 403


def documented_example() -> str:
    page = (Path(__file__).parents[3] / "docs" / "operations.md").read_text()
    return page.split("```yaml\n")[1].split("```")[0]


def test_example_of_the_operations_page__is_a_policy_file() -> None:
    rules = parse_policies(documented_example().encode())
    assert [rule.policy.name for rule in rules] == ["partners", "batch-dearer", "reports-trial"]


@pytest.mark.parametrize(
    ("headers", "limit"),
    [
        ({"X-API-Key": "k1"}, '"partners";q=1000;w=60'),
        ({"Authorization": "Bearer k1"}, '"partners";q=1000;w=60'),
        ({"X-API-Key": "unknown"}, '"predict";q=60;w=60'),
        ({}, '"predict";q=60;w=60'),
    ],
)
async def test_partners_policy__raises_the_limit_of_partners_only(
    start_edge: StartEdge, start_upstream: StartUpstream, tmp_path: Path, headers: dict[str, str], limit: str
) -> None:
    path = tmp_path / "policies.yaml"
    path.write_text(re.sub("- [0-9a-f]{64}", f"- {DIGEST}", documented_example(), count=1))
    edge = await start_edge(EDGE_UPSTREAM_INFERENCE=await start_upstream(fine), EDGE_POLICY_FILE=str(path))
    async with edge.http.post("/predict", json={}, headers=headers) as response:
        assert response.headers["RateLimit-Policy"] == limit
    statuses = await asyncio.gather(*(edge.post(headers=headers) for _ in range(69)))
    assert statuses.count(429) == (0 if "partners" in limit else 10)
