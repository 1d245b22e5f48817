"""Measures the dashboard in a headless Chromium: bytes, first paint, long tasks, heap, and a hundred thousand points.

    python -m benchmarks.dashboard [--visits 10] [--seconds 60] [--heap-minutes 10]

It starts a separate system with a day of predictions and a steady rate of new ones. Needs `make tools` and Chromium.
"""

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from chromium import chromium
from made_up import an_ordinary_day, prediction, send
from own_system import own_system
from playwright.sync_api import Browser, Page
from system import System

from benchmarks import results
from benchmarks.results import Measure, against

RATE_PER_S: Final = 50
POINTS: Final = 100_000
DRAWN: Final = 20  # times
HEAP_EVERY_S: Final = 15.0
WARM_UP_S: Final = 180.0  # the browser compiles scripts and caches the result
LIMITS: Final = {"bytes": 150 * 1024, "paint_ms": 1000.0, "task_ms": 100.0, "growth": 0.05}
WATCH: Final = """
window.tasks = [];
new PerformanceObserver((list) => tasks.push(...list.getEntries().map((one) => one.duration)))
  .observe({ type: "longtask", buffered: true });
"""
MANY: Final = """async ([points, times]) => {
  const folder = document.querySelector("script[type=module]").src.replace("app.js", "");
  const { Plot } = await import(`${folder}plot.js`);
  const series = ["a", "b", "c"].map((label, i) => ({ label, colour: `--series-${i + 1}` }));
  const plot = new Plot({ id: "many", title: "Many", hint: "", empty: "", format: String, series });
  document.getElementById("plots").append(plot.figure);
  const at = Array.from({ length: points }, (_, i) => 1_790_000_000 + i);
  const line = (k) => at.map((_, i) => 2 + Math.sin(i / 500 + k) + Math.random());
  plot.figure.querySelector("details").open = true;
  const frame = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  await frame();
  const taken = [];
  for (let k = 0; k < times; k++) {
    const columns = [line(k), line(k + 1), line(k + 2)];
    await frame();
    const begun = performance.now();
    plot.show(at, columns);
    await frame();
    taken.push(performance.now() - begun);
  }
  return taken;
}"""


def main() -> None:
    options = _options()
    with (
        tempfile.TemporaryDirectory() as folder,
        own_system(Path(folder) / "state") as system,
        chromium() as browser,
    ):
        _fill(system)
        with _traffic(system):
            visits = [_first_visit(browser, system) for _ in range(options.visits)]
            tasks = _live(browser, system, options.seconds)
            drawn = _many_points(browser, system)
            heap = _heap(browser, system, options.heap_minutes * 60)
    measures = list(_measures(visits, tasks, drawn, heap))
    results.save("dashboard", measures, {"Chromium": browser.version})


def _fill(system: System) -> None:
    """Send a day of predictions and wait until they are counted."""
    send(system, an_ordinary_day(time.time()))
    print("filled", flush=True)


@contextmanager
def _traffic(system: System) -> Iterator[None]:
    """Send RATE_PER_S predictions per second until cancelled."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(1):
            send(system, [prediction(time.time(), 20.0) for _ in range(RATE_PER_S)])

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def _page(browser: Browser, system: System) -> Iterator[Page]:
    """Open the dashboard in a new profile and wait until the stream is live."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    try:
        context.add_init_script(WATCH)
        page = context.new_page()
        page.goto(f"{system.url}/dashboard?window=1h")
        page.wait_for_selector("#live[data-state=live]")
        yield page
    finally:
        context.close()


def _first_visit(browser: Browser, system: System) -> tuple[float, float]:
    """Return the bytes transferred and the milliseconds until the first paint."""
    with _page(browser, system) as page:
        sent: float = page.evaluate(
            "performance.getEntries().filter((one) => one.transferSize && one.name.includes('/dashboard'))"
            ".reduce((sum, one) => sum + one.transferSize, 0)"
        )
        painted: float = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    return sent, painted


def _live(browser: Browser, system: System, seconds: float) -> list[float]:
    """Return the tasks of at least 50 ms during some seconds of updates."""
    with _page(browser, system) as page:
        page.evaluate("tasks.length = 0")
        page.wait_for_timeout(1000 * seconds)
        found: list[float] = page.evaluate("tasks")
    return found


def _many_points(browser: Browser, system: System) -> list[float]:
    """Return the milliseconds to draw three new lines of POINTS each."""
    with _page(browser, system) as page:
        found: list[float] = page.evaluate(MANY, [POINTS, DRAWN])
    return found


def _heap(browser: Browser, system: System, seconds: float) -> list[tuple[float, int]]:
    """Return the JavaScript heap in bytes after a collection, by second."""
    found: list[tuple[float, int]] = []
    with _page(browser, system) as page:
        session = page.context.new_cdp_session(page)
        begun_s = time.monotonic()
        while (at_s := time.monotonic() - begun_s) <= seconds:
            session.send("HeapProfiler.collectGarbage")
            found.append((at_s, session.send("Runtime.getHeapUsage")["usedSize"]))
            page.wait_for_timeout(1000 * HEAP_EVERY_S)
    return found


def _measures(
    visits: list[tuple[float, float]], tasks: list[float], drawn: list[float], heap: list[tuple[float, int]]
) -> Iterator[Measure]:
    yield against(
        "page and its files, compressed, KiB", "less", [sent / 1024 for sent, _ in visits], LIMITS["bytes"] / 1024
    )
    yield against("first contentful paint, ms", "less", [painted for _, painted in visits], LIMITS["paint_ms"])
    yield against(
        "longest task of live updates, ms (50: none was longer)", "less", [max([50.0, *tasks])], LIMITS["task_ms"]
    )
    yield against(f"three lines of {POINTS:,} points drawn, ms", "less", drawn, LIMITS["paint_ms"])
    if len(heap) > 1:
        warm = [used for at_s, used in heap if at_s >= WARM_UP_S] or [used for _, used in heap]
        quarter = max(1, len(warm) // 4)
        first, last = statistics.median(warm[:quarter]), statistics.median(warm[-quarter:])
        yield against("heap at the end, share of that at the start", "less", [last / first], 1 + LIMITS["growth"])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--visits", type=int, default=10, help="visits, each of which loads everything")
    parser.add_argument("--seconds", type=float, default=60, help="seconds of live updates with long tasks counted")
    parser.add_argument("--heap-minutes", type=float, default=10, help="minutes of watching the heap; 0: none")
    return parser.parse_args()


if __name__ == "__main__":
    main()
