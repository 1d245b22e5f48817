"""Outages: an empty system, services that stop under an open page, and a first visit to a broken system."""

import re
from collections.abc import Callable

from browser.conftest import QUICK, Api, Visit
from browser.test_accessibility import violations
from made_up import redis_of
from playwright.sync_api import Page, expect
from system import System

BLUE = """selector => {
  const canvas = document.querySelector(selector);
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  return pixels.filter((red, i) => i % 4 === 0 && red === 0 && pixels[i + 1] === 0x72 && pixels[i + 2] === 0xb2).length;
}"""  # how many pixels have the colour of what was answered

Open = Callable[..., Visit]
Take = Callable[[Page, str], None]
StartSystem = Callable[..., System]


def test_an_empty_system__says_so_and_a_prediction_moves_its_plots(
    start_system: StartSystem, visit: Open, picture: Take, axe: str
) -> None:
    system = start_system(**QUICK)
    visited = visit(system, window="5m", height=1130, script=axe)
    page = visited.page
    visited.live()
    expect(page.locator("h1")).to_have_text("No traffic in this window")
    expect(page.get_by_text("No requests in this window.")).to_be_visible()
    expect(page.locator("#plots figure[data-state=empty]")).to_have_count(9)
    expect(page.locator("#first")).to_contain_text("curl")
    assert violations(page) == []
    picture(page, "dashboard-empty")
    predictions = page.locator('[data-tile="predictions"] .tile-value')
    expect(predictions).to_have_text("0")
    page.get_by_label("Text", exact=True).fill("A dull, endless film.")
    for n in (1, 2):
        page.get_by_role("button", name="Predict").click()
        expect(page.locator("#prediction .answer")).to_have_text(re.compile("^NEGATIVE [0-9.]+ %$"))
        expect(page.locator("#left")).to_have_text(f"{60 - n} of 60 predictions left this minute")
        expect(predictions).to_have_text(str(n))
        expect(page.locator("#first")).to_be_hidden()
        counted = "1 request and 1 answered prediction" if n == 1 else "2 requests and 2 answered predictions"
        expect(page.locator("#scope")).to_have_text(f"{counted} in the last 5 minutes")
        expect(page.locator("#plot-labels").get_by_role("row", name=f"NEGATIVE 100 % {n}")).to_be_visible()
    expect(page.locator("#plot-throughput")).to_have_attribute("data-state", "ready")
    page.locator("#plot-throughput summary").click()
    answered = page.locator("#plot-throughput tbody td:nth-child(2)").filter(has_text=re.compile("[1-9]"))
    expect(answered.first).to_be_visible()
    assert page.evaluate(BLUE, "#plot-throughput canvas") > 0


def test_a_service_that_ends_under_the_page__leaves_it_stale_until_it_is_back(
    system: System, api: Api, visit: Open
) -> None:
    visited = visit(system, window="5m")
    page = visited.page
    visited.live()
    for package in ("metrics", "edge_limiter"):
        with system.unattended():
            system.service(package).kill()
            expect(page.locator("#live")).to_have_text(re.compile(r"^Stale since \d\d:\d\d:\d\d$"))
            expect(page.locator("body")).to_have_attribute("data-stale", "")
        expect(page.locator("#live")).to_have_text("Live")
        expect(page.locator("body[data-stale]")).to_have_count(0)
    page.get_by_role("button", name="Predict").click()
    expect(page.locator("#prediction .answer")).to_be_visible()


def test_a_store_that_takes_no_writes__is_down_and_nothing_is_called_up_to_date(
    system: System, api: Api, visit: Open
) -> None:
    visited = visit(system, window="5m")
    page = visited.page
    expect(page.locator("#lag")).to_have_text("Ingestion is up to date")
    before = api.count()
    with redis_of(system) as redis:
        redis.config_set("maxmemory", 1)
        try:
            page.get_by_role("button", name="Predict").click()
            expect(page.locator("#prediction .answer")).to_be_visible()
            expect(page.locator("#lag")).to_have_text("Ingestion lag is unknown")
            expect(page.locator("#system").get_by_role("row", name="Redis down")).to_be_visible()
            page.get_by_role("button", name="Generate report").click()
            expect(page.locator("#report")).to_contain_text("The delay of ingestion is not known.")
            assert api.count() == before
        finally:
            redis.config_set("maxmemory", 0)
    expect(page.locator("#lag")).to_have_text("Ingestion is up to date")
    api.wait_for_count(before + 1)


def test_a_service_that_hangs__is_stale_though_its_connection_stands(system: System, visit: Open) -> None:
    visited = visit(system)
    page = visited.page
    visited.live()
    metrics = system.service("metrics")
    metrics.suspend()
    try:
        expect(page.locator("#live")).to_have_text(re.compile("^Stale since"))
    finally:
        metrics.resume()
    expect(page.locator("#live")).to_have_text("Live")


def test_a_first_visit_while_metrics_cannot_answer__says_so_and_recovers(system: System, visit: Open) -> None:
    visited = visit(system)
    page = visited.page
    page.route("**/metrics/**", lambda route: route.fulfill(status=503, content_type="text/plain", body="away"))
    page.reload()
    expect(page.locator("#trouble")).to_contain_text("No figures yet")
    expect(page.locator("#alerts")).to_contain_text("Alerts are unavailable.")
    expect(page.locator("#live")).to_have_text("Connecting…")
    page.unroute("**/metrics/**")
    visited.live()
    expect(page.locator("#trouble")).to_be_hidden()
    expect(page.locator("h1")).not_to_have_text("Status unknown")


def test_inference_that_is_down__is_the_headline(system: System, visit: Open, picture: Take) -> None:
    visited = visit(system, height=1130)
    page = visited.page
    visited.live()
    expect(page.locator("#system")).to_contain_text("ok")
    with system.unattended():
        system.service("inference").kill()
        headline = re.compile(r"^Predictions are failing: inference is down since \d\d:\d\d:\d\d$")
        expect(page.locator("h1")).to_have_text(headline)
        expect(page.locator("h1")).to_have_attribute("data-state", "critical")
        expect(page.locator("h1 a")).to_have_attribute("href", "#system")
        picture(page, "dashboard-inference-down")
    expect(page.locator("h1")).to_have_text("All thresholds OK")
