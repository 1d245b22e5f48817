"""What each part shows before its answer comes, and when it cannot come."""

import json
import re
from collections.abc import Callable

import pytest
from browser.conftest import Visit
from playwright.sync_api import Page, Route, expect
from system import System

Open = Callable[..., Visit]

UNAVAILABLE = "The store does not answer."
PROBLEM = {"type": "about:blank", "title": "Service unavailable", "status": 503, "detail": UNAVAILABLE}
SECONDS_FLY = "AbortSignal.timeout = (ms) => (ms > 60_000 ? new AbortController().signal : AbortSignal.abort())"


def refuse(route: Route) -> None:
    route.fulfill(status=503, content_type="application/problem+json", body=json.dumps(PROBLEM))


def test_before_the_first_answers__every_part_says_that_it_loads(system: System, visit: Open) -> None:
    visited = visit(system, window="6h")
    page = visited.page
    held: list[Route] = []
    is_held = True

    def hold(route: Route) -> None:
        if is_held:
            held.append(route)
        else:
            route.continue_()

    for path in ("metrics/**", "health", "models"):
        page.route(f"{system.url}/{path}", hold)
    page.reload()
    expect(page.locator("#plots figure[data-state=loading]")).to_have_count(9)
    expect(page.locator("#tiles [data-state=loading]")).to_have_count(8)
    expect(page.locator("h1")).to_have_text("Looking…")
    expect(page.locator("#scope")).to_have_text("Loading the last 6 hours.")
    expect(page.locator("#live")).to_have_text("Connecting…")
    for panel in ("alerts", "model", "system"):
        expect(page.locator(f"#{panel}")).to_contain_text("Loading…")
    is_held = False
    for route in held:
        route.continue_()
    visited.live()
    expect(page.locator("#plots figure[data-state=ready]")).to_have_count(9)


@pytest.mark.parametrize(
    ("path", "panel", "text"),
    [
        ("metrics/drift*", "#plot-drift", "Unavailable: The store does not answer."),
        ("models", "#model", "The model is unavailable."),
        ("health", "#system", "The edge does not respond."),
        ("metrics/alerts", "#alerts", "Alerts are unavailable."),
    ],
)
def test_a_part_that_cannot_be_asked__says_so_and_the_others_go_on(
    system: System, visit: Open, path: str, panel: str, text: str
) -> None:
    visited = visit(system)
    page = visited.page
    page.route(f"{system.url}/{path}", refuse)
    page.reload()
    expect(page.locator(panel)).to_contain_text(text)
    expect(page.locator(panel)).to_contain_text(UNAVAILABLE)
    visited.live()
    expect(page.locator("#plot-latency[data-state=ready]")).to_be_visible()


def test_a_prediction_and_a_report_that_fail__can_be_tried_again(system: System, visit: Open) -> None:
    page = visit(system).page
    page.route("**/predict", refuse)
    page.route("**/analyze/performance", refuse)
    page.get_by_role("button", name="Predict").click()
    expect(page.locator("#prediction .notice")).to_contain_text(UNAVAILABLE)
    page.get_by_role("button", name="Generate report").click()
    expect(page.locator("#report .notice")).to_contain_text(UNAVAILABLE)
    page.unroute_all()
    page.get_by_role("button", name="Predict").click()
    expect(page.locator("#prediction .answer")).to_be_visible()
    page.get_by_role("button", name="Regenerate").click()
    expect(page.locator("#report .lead")).to_be_visible()


def test_thresholds_that_cannot_be_read__are_said_to_be_so(system: System, visit: Open) -> None:
    visited = visit(system)
    page = visited.page
    visited.live()
    page.route("**/metrics/thresholds", refuse)
    add = page.get_by_role("button", name="Add")
    add.click()
    expect(page.locator("#alerts .notice")).to_contain_text("The thresholds are unavailable.")
    with page.expect_response("**/metrics/alerts"):
        pass  # figures came meanwhile
    expect(page.locator("#alerts .notice")).to_be_visible()
    expect(page.locator("[data-rule]").first).to_be_visible()
    expect(add).to_be_focused()


def test_a_report__may_take_as_long_as_the_edge_lets_it(system: System, visit: Open) -> None:
    """A clock on which a minute is over at once: a request that gives up before would give up now."""
    visited = visit(system)
    visited.live()
    page: Page = visited.page
    page.evaluate(SECONDS_FLY)
    page.get_by_role("button", name="Generate report").click()
    expect(page.locator("#report .byline")).to_have_text(re.compile("Selected by"))
