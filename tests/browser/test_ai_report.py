"""A report that Gemini wrote, read in the browser: who wrote it, how fresh it is, and where its evidence leads."""

import json
import re
import time
from collections.abc import Callable

from browser.conftest import QUICK, Api, Visit
from fake_gemini import Script
from gemini import gemini
from made_up import prediction, send
from playwright.sync_api import Page, expect
from system import System

Open = Callable[..., Visit]
StartSystem = Callable[..., System]

ANSWER = {
    "headline": "none",
    "findings": [],
    "actions": [],
    "interpretation": "The number of requests was {f1}.",
}


def test_a_report_by_gemini__names_its_writer_its_age_and_its_evidence(start_system: StartSystem, visit: Open) -> None:
    script = Script(text=json.dumps(ANSWER))
    with gemini(script) as endpoint:
        system = start_system(
            **QUICK,
            GEMINI_SDK="genai",
            GEMINI_API_KEY="none",
            GEMINI_ENDPOINT=endpoint,
            GEMINI_CACHE_TTL="2",
            GEMINI_RATE_LIMIT="1000",
            EDGE_ANALYZE_RATE_LIMIT="1000",
        )
        now_s = time.time()
        sent = [prediction(now_s - n, 10.0 + n) for n in range(60)]
        send(system, [*sent, prediction(now_s - 5, outcome="timeout")])
        Api(system).wait_for_count(len(sent))
        visited = visit(system)
        page = visited.page
        visited.live()
        page.get_by_role("button", name="Generate report").click()
        expect(page.locator("#report .byline")).to_contain_text("Selected by gemini-that-answered, at")
        expect(page.locator("#report .lead")).to_have_text(re.compile(r"^The service is "))
        expect(page.locator("#report .interpretation")).to_have_text(
            "Interpretation by gemini-that-answered, not verified: The number of requests was 61."
        )
        assert evidence(page, "errors.timeout") == "plot-errors"
        expect(page.locator('.chip[data-metric="errors.timeout"]')).to_have_text("Errors: timeout 1")
        for state in ("cached", "stale"):
            regenerate_until(page, rf"at [\d:]+, on the last hour, {state}, \d+ s old\.$")
        for _ in range(300):  # a stale report is renewed in the background
            if script.calls >= 2:
                break
            page.wait_for_timeout(100)
    assert script.calls >= 2


def evidence(page: Page, metric: str) -> str:
    """The id of what gets the focus when the chip of a metric is chosen."""
    page.locator(f'#report .chip[data-metric="{metric}"]').first.click()
    return str(page.evaluate("document.activeElement.id"))


def regenerate_until(page: Page, pattern: str) -> None:
    """Request reports, each cached for two seconds, until the byline of one matches the pattern."""
    seen = set()
    for _ in range(300):
        page.get_by_role("button", name="Regenerate").click()
        expect(page.get_by_role("button", name="Regenerate")).to_be_enabled()
        line = page.locator("#report .byline").inner_text()
        if re.search(pattern, line):
            return
        seen.add(line)
    raise AssertionError(seen)
