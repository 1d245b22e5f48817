"""A service process: start, drain, exit status and messages."""

import asyncio
import gzip
import http.client
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from importlib.metadata import version
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from common.http.app import AppConfig, create_app
from common.runtime.metrics import HttpMetrics, LoopMetrics
from common.runtime.readiness import Readiness
from common.runtime.settings import Settings
from common.runtime.tasks import cancel_and_wait
from common.service import BackgroundTaskFailed, Listen, Service, create_runner, serve

PROBE = """
import asyncio, sys
from pathlib import Path
from typing import ClassVar
from aiohttp import web
from pydantic import SecretStr
from common.http import server
from common.runtime.readiness import Readiness
from common.service import Listen, Service, command_line
from common.runtime.settings import StartError
from common.runtime.settings import Port, Settings
from common.runtime.metrics import HttpMetrics, create_registry
from common.http.app import AppConfig, create_app

class ProbeSettings(Settings):
    prefixes: ClassVar[tuple[str, ...]] = ("SLUICE_", "PROBE_")
    probe_host: str = "127.0.0.1"
    probe_port: Port | None = None
    probe_ops_port: Port | None = None
    probe_fails: bool = False
    probe_lame_duck_s: float = server.LAME_DUCK_S
    probe_token: SecretStr = SecretStr("")
    probe_key: SecretStr = SecretStr("")

def create(settings):
    server.LAME_DUCK_S = settings.probe_lame_duck_s
    registry = create_registry()
    app = create_app(AppConfig(HttpMetrics(registry)))
    release = asyncio.Event()
    async def slow(request):
        print("entered", flush=True)
        await release.wait()
        return web.json_response({"done": True})
    async def resources(app):
        if settings.probe_fails:
            raise StartError("the model is missing; run make model")
        yield
        print("closed", flush=True)
    app.cleanup_ctx.append(resources)
    app.router.add_get("/slow", slow)
    listen = Listen.at(2, settings, settings.probe_host, settings.probe_port, settings.probe_ops_port)
    async def check():
        if Path(__file__).with_name("release").exists():
            release.set()
        return "ok"
    readiness = Readiness({"release": check})
    return Service(app, readiness, registry, listen, settings.sluice_drain_s)

def migrate(settings):
    raise RuntimeError("cannot reach the tables")

sys.exit(command_line("common", ProbeSettings, create, migrate=migrate))
"""


class Probe:
    """One probe process and the lines it has printed."""

    def __init__(self, folder: Path, port: int, ops_port: int) -> None:
        self.folder, self.port, self.ops_port = folder, port, ops_port
        (folder / "probe.py").write_text(PROBE)
        self.lines: list[str] = []

    def start(self, *arguments: str, **environ: str) -> subprocess.Popen[str]:
        ports = {"PROBE_PORT": str(self.port), "PROBE_OPS_PORT": str(self.ops_port)}
        return subprocess.Popen(
            [sys.executable, str(self.folder / "probe.py"), *arguments],
            env={**os.environ, **ports, **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str, **environ: str) -> tuple[int, str]:
        process = self.start(*arguments, **environ)
        output, _ = process.communicate(timeout=60)
        return process.returncode, output

    def metric(self, name: str) -> float:
        lines = self.get("/metrics", self.ops_port)[1].decode().splitlines()
        return float(next(line for line in lines if line.startswith(f"{name} ")).split()[1])

    def get(self, path: str, port: int | None = None) -> tuple[int, bytes]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port or self.port}{path}", timeout=60) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()


def wait_for(process: "subprocess.Popen[str]", text: str) -> str:
    """The next line that holds `text`."""
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return line
    raise AssertionError(f"the process ended without saying {text!r}")


@pytest.fixture
def probe(tmp_path: Path, free_port: Callable[[], int]) -> Probe:
    return Probe(tmp_path, free_port(), free_port())


@pytest.fixture
def running(probe: Probe) -> Iterator["subprocess.Popen[str]"]:
    process = probe.start()
    try:
        wait_for(process, "listening")
        yield process
    finally:
        process.kill()
        process.communicate()


class Asking(threading.Thread):
    """One request in the background."""

    def __init__(self, probe: Probe, path: str) -> None:
        super().__init__()
        self.probe, self.path = probe, path
        self.answer: Any = None

    def run(self) -> None:
        try:
            self.answer = self.probe.get(self.path)
        except (OSError, urllib.error.URLError) as error:
            self.answer = error


def test_sigterm__drains_the_request_in_flight_then_exits_0(probe: Probe, running: "subprocess.Popen[str]") -> None:
    asking = Asking(probe, "/slow")
    asking.start()
    wait_for(running, "entered")
    assert probe.get("/readyz", probe.ops_port)[0] == 200
    running.send_signal(signal.SIGTERM)
    wait_for(running, "draining")
    assert probe.get("/readyz", probe.ops_port)[0] == 503
    assert probe.get("/livez", probe.ops_port)[0] == 200
    (probe.folder / "release").touch()
    probe.get("/readyz", probe.ops_port)
    asking.join(60)
    assert asking.answer == (200, b'{"done": true}')
    output, _ = running.communicate(timeout=60)
    assert "closed" in output
    assert '"stopped"' in output
    assert running.returncode == 0


async def test_service_that_does_not_listen_yet__is_alive_but_not_ready(free_port: Callable[[], int]) -> None:
    opened, stop = asyncio.Event(), asyncio.Event()

    async def resources(_app: web.Application) -> AsyncIterator[None]:
        await opened.wait()
        yield

    app = web.Application()
    app.cleanup_ctx.append(resources)
    listen = Listen("127.0.0.1", free_port(), free_port())
    service = Service(app, Readiness(), CollectorRegistry(), listen, drain_s=1.0)
    async with asyncio.TaskGroup() as tasks, aiohttp.ClientSession(f"http://127.0.0.1:{listen.ops_port}") as ops:
        tasks.create_task(serve(service, stop=stop))
        assert await answer(ops, "/livez") == (200, {"status": "ok"})
        assert await answer(ops, "/readyz") == (503, {"status": "failed", "checks": {"starting": "failed"}})
        opened.set()
        while (await answer(ops, "/readyz"))[0] != 200:
            await asyncio.sleep(0.01)
        async with aiohttp.ClientSession() as public, public.get(f"http://127.0.0.1:{listen.port}/") as response:
            assert response.status == 404
        stop.set()


@asynccontextmanager
async def listening(app: web.Application) -> AsyncIterator[int]:
    """The port of `app` in a service's own runner."""
    runner = create_runner(Service(app, Readiness(), CollectorRegistry(), Listen("127.0.0.1", 1, 2), drain_s=1.0))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def test_head_as_long_as_the_edge_takes__is_taken() -> None:
    async def length(request: web.Request) -> web.Response:
        return web.json_response([len(request.path), len(request.headers["X-Long"])])

    app = web.Application()
    app.router.add_get("/{path}", length)
    async with listening(app) as port, aiohttp.ClientSession(f"http://127.0.0.1:{port}") as asking:
        async with asking.get("/" + "a" * 8_191, headers={"X-Long": "a" * 32_000}) as response:
            assert (response.status, await response.json()) == (200, [8_192, 32_000])


@pytest.mark.parametrize(("path", "status"), [("/read", b"413"), ("/refused", b"415"), ("/nowhere", b"404")])
async def test_bomb__is_answered_and_not_unpacked_further(
    monkeypatch: pytest.MonkeyPatch, path: str, status: bytes
) -> None:
    """A megabyte of it is a gigabyte, which would hold up the loop for seconds."""
    monkeypatch.setattr("common.http.server.LINGER_S", 0.2)
    bodies: list[aiohttp.StreamReader] = []

    async def read(request: web.Request) -> web.Response:
        return web.json_response(len(await request.read()))

    async def refused(_request: web.Request) -> web.Response:
        raise web.HTTPUnsupportedMediaType

    async def remember(request: web.Request, _response: web.StreamResponse) -> None:
        bodies.append(request.content)

    app = create_app(AppConfig(HttpMetrics(CollectorRegistry())))
    app.on_response_prepare.append(remember)
    app.router.add_post("/read", read)
    app.router.add_post("/refused", refused)
    body = gzip.compress(bytes(200 << 20))
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: {len(body)}\r\n\r\n"
    async with listening(app) as port, asyncio.timeout(60):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head.encode() + body)
        answered = await reader.read()  # to the end of the connection, after which nothing can be unpacked
        writer.close()
        await writer.wait_closed()
    assert answered.split()[1] == status
    assert b"\r\nConnection: close\r\n" in answered
    [unpacked] = bodies
    assert unpacked.total_bytes < 20 << 20


async def test_client_that_still_sends_when_it_is_answered__hears_the_answer() -> None:
    """Closing at once would reset the connection, and the answer would be lost on the way."""
    async with listening(create_app(AppConfig(HttpMetrics(CollectorRegistry())))) as port:

        def ask() -> int:
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as client:
                client.request("POST", "/nowhere", bytes(30 << 20))
                return client.getresponse().status

        assert await asyncio.to_thread(ask) == 404


async def test_service_that_broke__closes_in_order_and_ends_with_an_error(free_port: Callable[[], int]) -> None:
    closed = False

    async def resources(_app: web.Application) -> AsyncIterator[None]:
        nonlocal closed
        yield
        closed = True

    app = web.Application()
    app.cleanup_ctx.append(resources)
    listen = Listen("127.0.0.1", free_port(), free_port())
    service = Service(app, Readiness(), CollectorRegistry(), listen, drain_s=1.0)
    service.fatal.set()
    with pytest.raises(BackgroundTaskFailed):
        await serve(service)
    assert closed


async def answer(ops: aiohttp.ClientSession, path: str) -> tuple[int, object]:
    """Retry until the port is open."""
    async with asyncio.timeout(60):
        while True:
            try:
                async with ops.get(path) as response:
                    return response.status, await response.json()
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(0.01)


def test_secret_that_changed_since_the_start__is_counted_by_content(probe: Probe) -> None:
    for name in ("first", "second"):
        (probe.folder / name).mkdir()
        for key in ("token", "key"):
            (probe.folder / name / key).write_text(f"{key}\n" if name == "first" else key)
    mounted = probe.folder / "mounted"
    mounted.symlink_to(probe.folder / "first")  # as the kubelet does, which puts another in its place
    files = {f"PROBE_{key.upper()}_FILE": str(mounted / key) for key in ("token", "key")}
    process = probe.start(**files)
    try:
        wait_for(process, "listening")
        assert probe.metric("sluice_secrets_changed") == 0
        (probe.folder / "new").symlink_to(probe.folder / "second")
        (probe.folder / "new").rename(mounted)
        assert probe.metric("sluice_secrets_changed") == 0  # the same words in another file
        (probe.folder / "second" / "token").write_text("another token")
        assert probe.metric("sluice_secrets_changed") == 1
        (probe.folder / "second" / "key").unlink()
        assert probe.metric("sluice_secrets_changed") == 2
        (probe.folder / "second" / "token").write_text("token")
        assert probe.metric("sluice_secrets_changed") == 1
    finally:
        process.kill()
        process.communicate()


async def test_drain__takes_its_time_once_whatever_hangs(
    monkeypatch: pytest.MonkeyPatch, free_port: Callable[[], int]
) -> None:
    monkeypatch.setattr("common.http.server.LAME_DUCK_S", 0.0)
    drain_s, stood_s, entered, ended, closed_at = 2.0, 0.0, asyncio.Semaphore(0), [], [0.0]
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    async def hang(request: web.Request) -> web.Response:
        entered.release()
        try:
            await (request.read() if request.method == "POST" else asyncio.Event().wait())
        finally:
            ended.append(loop.time())
        return web.Response()

    async def watch() -> None:
        """Measure how long a busy machine suspends this process."""
        nonlocal stood_s
        while True:
            before = loop.time()
            await asyncio.sleep(0.01)
            stood_s += max(0.0, loop.time() - before - 0.1)

    async def resources(_app: web.Application) -> AsyncIterator[None]:
        yield
        closed_at[0] = loop.time()

    app = web.Application()
    app.cleanup_ctx.append(resources)
    app.router.add_route("*", "/", hang)
    listen = Listen("127.0.0.1", free_port(), free_port())
    service = Service(app, Readiness(), CollectorRegistry(), listen, drain_s)
    serving = asyncio.create_task(serve(service, stop=stop))
    async with aiohttp.ClientSession() as client, asyncio.timeout(60):
        while (await answer(client, f"http://127.0.0.1:{listen.ops_port}/readyz"))[0] != 200:
            await asyncio.sleep(0)
        writers = []
        for head in (b"GET / HTTP/1.1\r\nHost: x", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9"):
            _, writer = await asyncio.open_connection("127.0.0.1", listen.port)
            writer.write(head + b"\r\n\r\n")
            writers.append(writer)
            await entered.acquire()
        began = loop.time()
        watching = asyncio.create_task(watch())
        stop.set()
        await serving
        await cancel_and_wait(watching)
        for writer in writers:
            writer.close()
    assert [drain_s <= at - began < 1.8 * drain_s + stood_s for at in ended] == [True, True]
    assert closed_at[0] >= max(ended)


def test_second_signal__exits_at_once(probe: Probe, running: "subprocess.Popen[str]") -> None:
    asking = Asking(probe, "/slow")
    asking.start()
    wait_for(running, "entered")
    running.send_signal(signal.SIGTERM)
    wait_for(running, "draining")
    running.send_signal(signal.SIGINT)
    assert running.wait(60) == 1
    asking.join(60)
    assert isinstance(asking.answer, Exception)


@pytest.mark.usefixtures("running")
def test_page_whose_name_was_made_to_lead_here__reads_nothing_of_the_ops_port(probe: Probe) -> None:
    for host, status in (("rebound.example:9000", 403), ("localhost:9000", 200)):
        with closing(http.client.HTTPConnection("127.0.0.1", probe.ops_port, timeout=60)) as connection:
            connection.request("GET", "/metrics", headers={"Host": host})
            answer = connection.getresponse()
            assert answer.status == status
            assert status == 200 or b"use localhost" in answer.read()


def test_crash__leaves_no_core_file(probe: Probe) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    try:
        process = probe.start()
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))
    wait_for(process, "listening")
    process.send_signal(signal.SIGABRT)
    _, status = os.waitpid(process.pid, 0)
    process.communicate(timeout=60)
    assert os.WIFSIGNALED(status)
    assert not os.WCOREDUMP(status)


@pytest.mark.parametrize("name", ["PROBE_PORT", "PROBE_OPS_PORT"])
def test_taken_port__is_one_line_with_the_cure(probe: Probe, name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        status, output = probe.run(**{name: str(taken.getsockname()[1])})
    assert status == 1
    assert "Address already in use" in output
    assert "SLUICE_PORT_BASE" in output
    assert "Traceback" not in output
    assert output.count("\n") == 1 + output.count("closed\n")


@pytest.mark.parametrize(
    ("command", "environ", "reason"),
    [
        ("serve", {"PROBE_HOST": "no-such-host.invalid"}, "no-such-host.invalid"),
        ("serve", {"SLUICE_OPS_HOST": "no-such-host.invalid"}, "no-such-host.invalid"),
        ("serve", {"PROBE_FAILS": "true"}, "the model is missing; run make model"),
        ("migrate", {}, "cannot reach the tables"),
    ],
)
def test_failed_start__is_one_line_and_status_1(
    probe: Probe, command: str, environ: dict[str, str], reason: str
) -> None:
    status, output = probe.run(command, **environ)
    assert (status, output.count("\n")) == (1, 1 + output.count("closed\n"))
    assert reason in output


@pytest.mark.parametrize("name", ["PROBE_PORT", "PROBE_WRONG", "LOG_LEVEL", "SLUICE_DRAIN_S"])
def test_malformed_setting__is_one_line_and_status_2(probe: Probe, name: str) -> None:
    status, output = probe.run(**{name: "hunter2"})
    assert (status, output.count("\n")) == (2, 1)
    assert output.startswith(f"common: {name} ")
    assert "hunter2" not in output


def test_help_and_version__need_no_settings(probe: Probe) -> None:
    status, output = probe.run("--help", LOG_LEVEL="wrong")
    assert status == 0
    assert "migrate" in output
    assert ".env.example" in output
    assert probe.run("--version", LOG_LEVEL="wrong") == (0, f"sluice-common {version('sluice-common')}\n")


def test_port_base__gives_each_service_its_ports() -> None:
    assert Listen.at(2, Settings(), "127.0.0.1", None, None) == Listen("127.0.0.1", 8002, 9002, "127.0.0.1")
    assert Listen.at(2, Settings(sluice_port_base=7000), "0.0.0.0", 1, None) == Listen("0.0.0.0", 1, 8002, "127.0.0.1")


async def test_ops_port_of_a_public_service__stays_on_loopback_unless_told_otherwise(
    free_port: Callable[[], int],
) -> None:
    for settings, answers in ((Settings(), False), (Settings(sluice_ops_host="0.0.0.0"), True)):
        listen, stop = Listen.at(0, settings, "0.0.0.0", free_port(), free_port()), asyncio.Event()
        service = Service(web.Application(), Readiness(), CollectorRegistry(), listen, drain_s=1.0)
        async with asyncio.TaskGroup() as tasks, aiohttp.ClientSession() as client:
            tasks.create_task(serve(service, stop=stop))
            await answer(client, f"http://127.0.0.1:{listen.ops_port}/livez")
            assert await is_answered(client, f"http://127.0.0.2:{listen.ops_port}/livez") is answers
            stop.set()


async def is_answered(client: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with client.get(url) as response:
            return response.status == 200
    except aiohttp.ClientConnectorError:
        return False


def test_request_on_a_kept_connection_after_sigterm__is_answered_and_told_to_close(
    probe: Probe,
) -> None:
    process = probe.start(LOG_FORMAT="json", PROBE_LAME_DUCK_S="60")
    wait_for(process, "listening")
    kept = http.client.HTTPConnection("127.0.0.1", probe.port, timeout=60)
    kept.request("GET", "/nowhere")
    first = kept.getresponse()
    first.read()
    process.send_signal(signal.SIGTERM)
    wait_for(process, "draining")
    with pytest.raises(ConnectionError):  # no new one is taken: refused, or reset in the moment of closing
        while True:
            socket.create_connection(("127.0.0.1", probe.port), timeout=60).close()
    kept.request("GET", "/nowhere")
    second = kept.getresponse()
    second.read()
    kept.close()
    assert first.headers["Connection"] is None
    assert (second.status, second.headers["Connection"]) == (404, "close")
    assert process.wait(60) == 0
    process.communicate()


class OwnServer(web.Server):
    """A server that answers every request itself, and records that it was asked to drain."""

    def __init__(self) -> None:
        super().__init__(self.respond)
        self.is_draining = False

    async def respond(self, request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(text=request.path)

    def start_draining(self) -> None:
        self.is_draining = True


async def test_server_of_its_own__is_opened_served_drained_and_closed(free_port: Callable[[], int]) -> None:
    events: list[str] = []

    @asynccontextmanager
    async def open_server() -> AsyncIterator[web.Server]:
        server = OwnServer()
        events.append("opened")
        yield server
        events.append(f"closed, draining: {server.is_draining}")

    listen, stop = Listen("127.0.0.1", free_port(), free_port()), asyncio.Event()
    service = Service(open_server, Readiness(), CollectorRegistry(), listen, drain_s=5.0)
    serving = asyncio.create_task(serve(service, stop=stop))
    async with asyncio.timeout(60):
        async with aiohttp.ClientSession() as client:
            while (await answer(client, f"http://127.0.0.1:{listen.ops_port}/readyz"))[0] != 200:
                await asyncio.sleep(0)
            async with client.get(f"http://127.0.0.1:{listen.port}/path") as response:
                assert await response.text() == "/path"
        stop.set()
        await serving
    assert events == ["opened", "closed, draining: True"]


async def test_loop_metrics__show_tasks_and_the_largest_lag() -> None:
    registry = CollectorRegistry()
    metrics = LoopMetrics(registry, timer_s=0.01)
    time.sleep(0.2)  # noqa: ASYNC251  # blocks the loop, so that the timer is late
    async with asyncio.timeout(60):
        while (registry.get_sample_value("sluice_loop_lag_seconds") or 0) < 0.1:
            await asyncio.sleep(0)
    assert (registry.get_sample_value("sluice_loop_tasks") or 0) >= 1
    metrics.close()
