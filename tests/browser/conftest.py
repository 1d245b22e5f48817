"""Starts the system and Debian's Chromium; every page is watched for errors, refused loads and other origins."""

import hashlib
import io
import itertools
import json
import os
import subprocess
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from chromium import chromium
from made_up import an_ordinary_day, send
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from system import System

ROOT: Final = Path(__file__).parents[2]
AXE: Final = "axe-core@4.14.1"
AXE_SHA256: Final = "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"
QUICK: Final = {"METRICS_EVALUATE_S": "1", "METRICS_STREAM_S": "1"}
CALM: Final = {"name": "error-rate", "metric": "error_rate", "above": 0.5, "window": "5m", "min_samples": 100}
SLOW: Final = {"name": "latency-p95", "metric": "latency_ms.p95", "above": 500.0, "window": "5m", "min_samples": 100}
PATIENCE_MS: Final = 60_000  # what a busy test machine may take for what a reader sees at once
OWN: Final = "window.own = name => new URL(name, document.scripts[0].src).href;"  # a file of the page's version
IMAGE_BYTES_MAX: Final = 120 * 1024


@dataclass(frozen=True)
class Api:
    """Send plain requests without the browser, with the admin token."""

    system: System

    @property
    def token(self) -> str:
        return self.system.service("edge_limiter").environ()["EDGE_ADMIN_TOKEN"]

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[Any, dict[str, str]]:
        """The JSON and the headers of an answer that must be 2xx."""
        request = urllib.request.Request(
            self.system.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {self.token}", **headers},
        )
        with urllib.request.urlopen(request, timeout=20) as response:
            return json.load(response), dict(response.headers)

    def count(self) -> int:
        return int(self.ask("GET", "/metrics/count")[0]["count"])

    def set_rules(self, *rules: dict[str, Any]) -> None:
        self.ask("PUT", "/metrics/thresholds", {"rules": list(rules)}, **{"If-Match": "*"})

    def wait_for_count(self, expected: int) -> None:
        deadline = time.monotonic() + 60
        while self.count() < expected:
            assert time.monotonic() < deadline, "the events were not ingested"
            time.sleep(0.1)


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory, port_base: Callable[[], int]) -> Iterator[System]:
    """One running system after a day of traffic, shared by all tests. Each test uses different addresses."""
    shared = System(tmp_path_factory.mktemp("browser") / "state", port_base(), dict(QUICK))
    try:
        shared.start()
        events = list(an_ordinary_day(time.time()))
        send(shared, events)
        Api(shared).wait_for_count(sum(event.kind == "prediction" and event.outcome == "ok" for event in events))
        yield shared
    finally:
        shared.stop()


@pytest.fixture
def api(system: System) -> Api:
    return Api(system)


@pytest.fixture(autouse=True)
def as_before(api: Api) -> None:
    """Whatever the test before did: rules that nothing breaks, however slow the machine is, and no report is kept."""
    api.set_rules(CALM, SLOW)
    api.ask("DELETE", "/analyze/cache")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=PATIENCE_MS)
    with chromium() as started:
        yield started


@dataclass
class Visit:
    """A page that is open, and what went wrong on it."""

    page: Page
    troubles: list[str]

    def live(self) -> None:
        """Wait until figures arrive by themselves."""
        self.page.wait_for_selector("#live[data-state=live]")


@pytest.fixture(scope="session")
def addresses() -> Iterator[str]:
    """Of clients: the limits of each are its own."""
    return (f"198.51.{n // 250}.{n % 250 + 1}" for n in itertools.count())


@pytest.fixture
def visit(browser: Browser, addresses: Iterator[str]) -> Iterator[Callable[..., Visit]]:
    """Call it with a system to open its dashboard in a new profile, under a client address not used before."""
    visits: list[Visit] = []
    address = next(addresses)

    def open_page(
        system: System, *, window: str = "1h", width: int = 1440, height: int = 900, script: str = "", **options: Any
    ) -> Visit:
        context = browser.new_context(
            viewport={"width": width, "height": height},
            extra_http_headers={"X-Forwarded-For": address},
            **{"color_scheme": "light", **options},
        )
        context.set_default_timeout(PATIENCE_MS)
        context.add_init_script(OWN + script)
        visited = Visit(context.new_page(), [])
        watch(visited, system.url)
        visits.append(visited)
        visited.page.goto(f"{system.url}/dashboard?window={window}")
        return visited

    yield open_page
    for visited in visits:
        visited.page.context.close()
        assert visited.troubles == []


def watch(visited: Visit, origin: str) -> None:
    """Keep page errors, whatever the policy refused, and requests to elsewhere; refused requests are part of tests."""
    page, troubles = visited.page, visited.troubles
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on(
        "console",
        lambda message: (
            troubles.append(message.text)
            if message.type in ("error", "warning") and "Failed to load resource" not in message.text
            else None
        ),
    )
    page.on("request", lambda asked: None if asked.url.startswith(f"{origin}/") else troubles.append(asked.url))


@pytest.fixture(scope="session")
def axe() -> str:
    """The source of axe-core, fetched once into .cache by npm."""
    folder = ROOT / ".cache" / AXE
    if not (folder / "axe.min.js").exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "pack", "--silent", AXE, "--pack-destination", str(folder)], check=True, cwd=folder)
        with tarfile.open(next(folder.glob("*.tgz"))) as archive:
            archived = archive.extractfile("package/axe.min.js")
            assert archived is not None
            (folder / "axe.min.js").write_bytes(archived.read())
    source = (folder / "axe.min.js").read_bytes()
    assert hashlib.sha256(source).hexdigest() == AXE_SHA256
    return source.decode()


def with_palette(image: Image.Image) -> Image.Image:
    """The same in the 256 colours that it has most of: ground, text and lines keep theirs, edges get the nearest."""
    counted: list[tuple[int, Any]] = sorted(image.convert("RGB").getcolors(1 << 24) or [], reverse=True)
    palette = Image.new("P", (1, 1))
    palette.putpalette([share for _, colour in counted[:256] for share in colour])
    return image.convert("RGB").quantize(palette=palette, dither=Image.Dither.NONE)


@pytest.fixture
def picture() -> Callable[[Page, str], None]:
    """Call it with a page and a name to keep what is seen as docs/images/NAME.png, if SCREENSHOTS names that folder."""

    def take(page: Page, name: str) -> None:
        page.evaluate("document.fonts.ready")
        packed = io.BytesIO()
        with_palette(Image.open(io.BytesIO(page.screenshot(animations="disabled")))).save(packed, "PNG", optimize=True)
        assert packed.tell() <= IMAGE_BYTES_MAX
        if folder := os.environ.get("SCREENSHOTS"):
            (ROOT / folder).mkdir(parents=True, exist_ok=True)
            (ROOT / folder / f"{name}.png").write_bytes(packed.getvalue())

    return take
