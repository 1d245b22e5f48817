import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from common.runtime.settings import StartError, load
from edge_limiter.app import create_service
from edge_limiter.ratelimit.policy import Policy, PolicyError
from edge_limiter.ratelimit.policy_file import PolicyWatch, parse_policies
from edge_limiter.ratelimit.policy_set import PolicySet
from edge_limiter.settings import EdgeSettings

StartEdge = Callable[..., Awaitable[Any]]
StartUpstream = Callable[..., Awaitable[str]]
DIGEST = hashlib.sha256(b"k1").hexdigest()
POLICY = """
[[policies]]
name = "few"
paths = ["/predict"]
methods = ["POST"]
limit = %d
window_s = 60
%s
"""


def test_file__becomes_rules() -> None:
    (rule,) = parse_policies((POLICY % (5, 'cost = 2\nmode = "shadow"\nexempt = ["10.0.0.0/8"]')).encode())
    assert (rule.policy.name, rule.policy.limit, rule.cost, rule.is_shadow) == ("few", 5, 2, True)
    assert rule.methods == {"POST"} and len(rule.exempt) == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("policies = [", "not TOML: .*end of document"),
        ("policies:\n  - name: few", "not TOML: .*line 1"),
        ("", "policies: Field required"),
        ("polices = []", "policies: Field required"),
        (POLICY % (0, ""), "policies.0.limit"),
        (POLICY % (2_000, ""), "1000 in 30 s"),
        (POLICY % (5, "limt = 3"), "policies.0.limt: Extra"),
        (POLICY % (5, 'block = ["10.0.0.0/33"]'), "policies.0.block.0"),
        (POLICY % (5, 'allow = ["10.0.0.0/8"]'), "policies.0.allow: Extra"),
        (POLICY % (5, 'identity = "api-key"'), "belong together"),
        (POLICY % (5, 'identity = "api-key"\nkeys = ["k1"]'), "policies.0.keys.0"),
        (POLICY % (5, "") + POLICY % (6, ""), "same name"),
        ("policies = 2024-13-45", "not TOML"),
        ("policies = " + "9" * 5_000, "not TOML"),
        ("policies = " + "[" * 100_000, "not TOML"),
        ("# \udcff", "not TOML: .*utf-8"),
        (POLICY % (5, "limit = 6"), "not TOML: Cannot overwrite a value .*line 8"),
        (POLICY.replace("/predict", "predict") % (5, ""), "policies.0.paths.0"),
        (POLICY.replace("/predict", "/predict*") % (5, ""), r"policies.0.paths.0: .*must follow a /"),
        (POLICY.replace("/predict", "/metrics/al*") % (5, ""), r"policies.0.paths.0: .*must follow a /"),
        (POLICY % (5, "cost = 6"), "policies.0: .*cost is above limit"),
        ("#" * (1 << 20) + "\n", "larger than 1 MiB"),
    ],
)
def test_wrong_file__is_refused_with_one_line_that_names_the_place(text: str, reason: str) -> None:
    with pytest.raises(PolicyError, match=reason) as raised:
        parse_policies(text.encode(errors="surrogateescape"))
    assert "\n" not in str(raised.value)


async def test_file_that_turns_wrong__keeps_the_old_policies_and_says_so_once(tmp_path: Path) -> None:
    path = tmp_path / "policies.toml"
    path.write_text(POLICY % (5, ""))
    policies = PolicySet({"predict": Policy("predict", 60, 60)}, parse_policies(path.read_bytes()))
    watch = PolicyWatch(path, policies)
    with capture_logs() as logs:
        for broken in ("policies = [", "policies = [ ", POLICY.replace("few", "predict") % (6, "")):
            path.write_text(broken)
            await watch.look()
    assert [entry["reason"] for entry in logs] == [
        "not TOML: Invalid value (at end of document)",
        "predict is the name of a built-in policy: choose another",
    ]
    assert policies.rules[0].policy.limit == 5
    path.write_text(POLICY % (7, ""))
    await watch.look()
    assert policies.rules[0].policy.limit == 7


async def test_file_that_is_missing_for_a_while__is_reported_once_and_read_when_it_returns(tmp_path: Path) -> None:
    path = tmp_path / "policies.toml"
    path.write_text(POLICY % (5, ""))
    policies = PolicySet({}, parse_policies(path.read_bytes()))
    watch = PolicyWatch(path, policies)
    path.unlink()
    with capture_logs() as logs:
        await watch.look()
        await watch.look()
    assert [entry["reason"] for entry in logs] == ["cannot be read: No such file or directory"]
    assert policies.rules[0].policy.limit == 5
    path.write_text(POLICY % (7, ""))
    await watch.look()
    assert policies.rules[0].policy.limit == 7


async def test_file_that_changes_while_the_edge_starts__is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "policies.toml"
    path.write_text(POLICY % (5, ""))
    policies = PolicySet({}, parse_policies(path.read_bytes()))
    path.write_text(POLICY % (6, ""))
    watch = PolicyWatch(path, policies)
    await watch.look()
    assert policies.rules[0].policy.limit == 6


async def test_file_that_says_the_same__replaces_nothing(tmp_path: Path) -> None:
    path = tmp_path / "policies.toml"
    path.write_text(POLICY % (5, ""))
    rules = parse_policies(path.read_bytes())
    policies = PolicySet({}, rules)
    watch = PolicyWatch(path, policies)
    with capture_logs() as logs:
        await watch.look()
        path.write_text(POLICY % (5, "") + "  # a word")
        await watch.look()
    assert policies.rules is rules and logs == []


@pytest.mark.parametrize("text", ["policies = 1", POLICY.replace("few", "analyze") % (5, "")])
def test_wrong_file_at_the_start__stops_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "policies.toml"
    path.write_text(text)
    with pytest.raises(StartError, match="EDGE_POLICY_FILE"):
        create_service(
            load(EdgeSettings, {"DATABASE_URL": "postgresql://u:p@127.0.0.1/x", "EDGE_POLICY_FILE": str(path)})
        )


async def fine(_request: web.Request) -> web.Response:
    return web.Response()


async def test_policies_of_a_file__limit_block_and_are_replaced(
    start_edge: StartEdge, start_upstream: StartUpstream, tmp_path: Path
) -> None:
    path = tmp_path / "policies.toml"
    path.write_text(POLICY % (2, f'identity = "api-key"\nkeys = ["{DIGEST}"]'))
    edge = await start_edge(
        EDGE_UPSTREAM_INFERENCE=await start_upstream(fine),
        EDGE_POLICY_FILE=str(path),
        EDGE_TRUSTED_PROXIES="127.0.0.1/32",
    )
    assert [await edge.post() for _ in range(3)] == [200] * 3
    assert [await edge.post(headers={"X-API-Key": "k1"}) for _ in range(3)] == [200, 200, 429]
    path.write_text(POLICY % (1, 'block = ["198.51.100.0/24"]'))
    async with asyncio.timeout(30):
        while await edge.post(headers={"X-Forwarded-For": "198.51.100.1"}) != 403:
            pass
    assert [await edge.post(headers={"X-Forwarded-For": "203.0.113.1"}) for _ in range(2)] == [200, 429]


def documented_example() -> str:
    page = (Path(__file__).parents[4] / "docs" / "operations.md").read_text()
    return page.split("```toml\n")[1].split("```")[0]


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
    path = tmp_path / "policies.toml"
    path.write_text(re.sub("[0-9a-f]{64}", DIGEST, documented_example(), count=1))
    edge = await start_edge(EDGE_UPSTREAM_INFERENCE=await start_upstream(fine), EDGE_POLICY_FILE=str(path))
    async with edge.http.post("/predict", json={}, headers=headers) as response:
        assert response.headers["RateLimit-Policy"] == limit
    statuses = await asyncio.gather(*(edge.post(headers=headers) for _ in range(69)))
    assert statuses.count(429) == (0 if "partners" in limit else 10)
