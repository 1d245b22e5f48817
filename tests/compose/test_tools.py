"""PgAdmin of the profile `tools`: one login, and the database connects without another password."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from compose.stack import Stack, docker

EMAIL = "admin@example.com"  # compose.yaml's
TAB = 4711  # an arbitrary id of a query tool
TIMEOUT = aiohttp.ClientTimeout(total=60)


@pytest.fixture(scope="module")
def pgadmin(whole_stack: Stack) -> str:
    """Start PgAdmin and return its container."""
    up = ("--profile", "tools", "up", "--detach", "--wait", "--no-recreate", "pgadmin")
    whole_stack.timed("PgAdmin", lambda: whole_stack.compose(*up))
    (container,) = whole_stack.containers("pgadmin")
    return container


@pytest.fixture
async def session(pgadmin: str) -> AsyncIterator[aiohttp.ClientSession]:
    """A browser session."""
    jar = aiohttp.CookieJar(unsafe=True)  # unsafe: accept cookies from an IP address
    url = f"http://{docker('port', pgadmin, '5050/tcp')}"
    async with aiohttp.ClientSession(url, cookie_jar=jar, timeout=TIMEOUT) as session:
        yield session


async def text(session: aiohttp.ClientSession, path: str) -> str:
    async with session.get(path) as response:
        assert response.status == 200, path
        return await response.text()


async def log_in(session: aiohttp.ClientSession, password: str) -> str:
    """Log in and return the path of the resulting page."""
    token = found(r'"csrfToken": "([^"]+)"', await text(session, "/login"))
    form = {"email": EMAIL, "password": password, "csrf_token": token}
    async with session.post("/authenticate/login", data=form) as response:
        assert response.status == 200
        return response.url.path


async def call(session: aiohttp.ClientSession, method: str, path: str, body: object = None) -> Any:
    """Call an endpoint of PgAdmin's user interface."""
    async with session.request(method, path, json=body) as response:
        answer = await response.json()
        assert (response.status, answer["success"]) == (200, 1), f"{path}: {answer}"
        return answer["data"] or answer["result"]


async def query(session: aiohttp.ClientSession, sql: str, where: str) -> Any:
    """Run a query in the query tool and return the rows."""
    await call(session, "POST", f"/sqleditor/initialize/sqleditor/{TAB}/{where}", {"dbname": "sluice"})
    await call(session, "POST", f"/sqleditor/query_tool/start/{TAB}", {"sql": sql})
    async with asyncio.timeout(60):
        while (polled := await call(session, "GET", f"/sqleditor/poll/{TAB}"))["status"] == "Busy":
            await asyncio.sleep(0.2)
    return polled["result"]


def found(pattern: str, page: str) -> str:
    match = re.search(pattern, page)
    assert match is not None, f"no {pattern} in {page[:500]}"
    return match[1]


async def test_pgadmin__connects_without_another_password(stack: Stack, session: aiohttp.ClientSession) -> None:
    assert await log_in(session, stack.secret("pgadmin-password")) == "/browser/"
    token = found(r"pgAdmin\['csrf_token'\] = '([^']+)'", await text(session, "/browser/js/utils.js"))
    session.headers["X-pgA-CSRFToken"] = token
    (group,) = await call(session, "GET", "/browser/nodes/")
    (server,) = await call(session, "GET", f"/browser/server/nodes/{group['_id']}/")
    assert (server["label"], server["username"], server["is_password_saved"]) == ("Sluice", "sluice", False)
    path = f"{group['_id']}/{server['_id']}"
    connected = await call(session, "POST", f"/browser/server/connect/{path}", {})
    assert (connected["connected"], connected["db"], connected["user"]["is_superuser"]) == (True, "sluice", False)
    sql = "SELECT current_user, to_regclass('metrics.prediction') IS NOT NULL"
    assert await query(session, sql, f"{path}/{connected['did']}") == [["sluice", True]]


async def test_pgadmin__rejects_a_wrong_password(stack: Stack, session: aiohttp.ClientSession) -> None:
    assert await log_in(session, stack.secret("pgadmin-password")[:-1]) == "/login"


def test_pgadmin__runs_without_root_or_capabilities_on_a_read_only_root(pgadmin: str) -> None:
    assert docker("exec", pgadmin, "id", "-u") == "5050"
    assert "CapBnd:\t0000000000000000" in docker("exec", pgadmin, "cat", "/proc/1/status")
    written = "touch /tmp/x && touch /pgadmin4/x 2>&1 || true"
    assert docker("exec", pgadmin, "sh", "-c", written).endswith("Read-only file system")
