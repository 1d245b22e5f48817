"""Live figures: their age is shown, a hidden page holds no connection, and the scroll position stays."""

import json
import re
import time
from collections.abc import Callable

from browser.conftest import Api, Visit
from made_up import prediction, send
from playwright.sync_api import Page, Route, expect
from system import System

Open = Callable[..., Visit]

FIRING = {"name": "always", "metric": "requests", "above": 0.0, "window": "15m"}
LOOK = """state => {
  Object.defineProperty(document, "visibilityState", { value: state, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""
MINUTES_FLY = """const wait = window.setTimeout;
window.setTimeout = (work, ms, ...rest) => wait(work, ms === 60_000 ? 200 : ms, ...rest);"""


def away(route: Route) -> None:
    route.fulfill(status=503, content_type="text/plain", body="away")


def traffic(system: System, n: int = 50) -> None:
    """Predictions of this moment, which change every figure of the last minutes."""
    send(system, [prediction(time.time(), 90.0, label="NEGATIVE", score=0.6) for _ in range(n)])


def test_a_stream_that_never_comes__figures_are_asked_for_and_old_ones_are_called_so(
    system: System, visit: Open
) -> None:
    page = visit(system).page
    page.route("**/metrics/stream*", lambda route: route.abort())
    page.reload()
    expect(page.locator("#live")).to_have_text(re.compile(r"^As of \d\d:\d\d:\d\d$"))
    first = page.locator("#live").inner_text()
    expect(page.locator("#live")).not_to_have_text(first)  # and asked for again
    expect(page.locator("#live")).to_have_text(re.compile("^As of"))
    expect(page.locator("#live [role=status]")).to_have_text("As of")  # no time is read out every few seconds
    page.route("**/metrics/aggregated", away)
    expect(page.locator("#live")).to_have_text(re.compile("^Stale since"))
    expect(page.locator("body")).to_have_attribute("data-stale", "")
    expect(page.locator("h1")).to_have_text("Status unknown")
    page.get_by_text("24h", exact=True).click()
    expect(page.locator("#trouble")).to_contain_text("No figures for the last 24 hours yet")
    expect(page.locator("#scope")).to_contain_text("in the last hour")
    expect(page.locator("#live")).to_have_text(re.compile("^Stale since"))
    page.unroute("**/metrics/aggregated")
    expect(page.locator("#scope")).to_contain_text("in the last 24 hours")
    expect(page.locator("#trouble")).to_be_hidden()
    expect(page.locator("#live")).to_have_text(re.compile("^As of"))
    expect(page.locator("body[data-stale]")).to_have_count(0)


def test_alerts_that_are_not_known__are_not_called_well(system: System, api: Api, visit: Open) -> None:
    api.set_rules()
    visited = visit(system)
    page = visited.page
    visited.live()
    expect(page.get_by_role("heading", level=1)).to_have_attribute("aria-live", "polite")
    expect(page.locator("h1")).to_have_text("All thresholds OK")
    page.route("**/metrics/alerts", away)
    expect(page.locator("h1")).to_have_text("Status unknown")
    expect(page.locator("h1")).to_have_attribute("data-state", "unknown")
    page.unroute("**/metrics/alerts")
    expect(page.locator("h1")).to_have_text("All thresholds OK")

    def late(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, body=json.dumps({**answer.json(), "overdue": True}))

    page.route("**/metrics/alerts", late)
    expect(page.locator("h1")).to_have_text("Status unknown")
    expect(page.locator("#alerts")).to_contain_text("Alerts are late")


def test_a_hidden_page__holds_no_connection_and_follows_again_when_it_is_seen(system: System, visit: Open) -> None:
    visited = visit(system)
    page = visited.page
    visited.live()
    with page.expect_event("requestfailed", lambda request: "/metrics/stream" in request.url):
        page.evaluate(LOOK, "hidden")
    with page.expect_request("**/metrics/stream*"):
        page.evaluate(LOOK, "visible")
    visited.live()


def test_the_focus__stays_where_it_is_under_traffic(system: System, api: Api, visit: Open) -> None:
    api.set_rules(FIRING)
    visited = visit(system, window="15m")
    page = visited.page
    visited.live()
    places = (
        page.get_by_role("button", name="Edit always"),
        page.get_by_role("button", name="Show the plot of always"),
        page.locator("#plot-confidence summary"),
        page.locator("#plot-labels").get_by_role("region"),
    )
    for place in places:
        expect(place).to_be_visible()
        place.focus()
        element = place.element_handle()
        moved(page, lambda: traffic(system))
        assert element.evaluate("element => element.isConnected && element === document.activeElement")


def moved(page: Page, act: Callable[[], None]) -> None:
    """Act, and wait until what depends on the figures shows it: the rules, the alerts, labels and confidence."""
    shown = """() => ['[data-rule=always] .figure', '[data-rule=always] .figure', '#plot-labels td:nth-child(4)',
      '#plot-confidence .legend-value'].map((one) => document.querySelector(one)?.textContent)"""
    before = page.evaluate(shown)
    act()
    page.wait_for_function(f"before => ({shown})().every((text, i) => text !== before[i])", arg=before)


def test_an_open_table__keeps_its_rows_and_stays_open(system: System, visit: Open) -> None:
    visited = visit(system, window="15m")
    page = visited.page
    visited.live()
    for plot in ("throughput", "confidence"):
        page.locator(f"#plot-{plot} summary").click()
    table = page.locator("#plot-throughput tbody")
    row = table.locator("tr:nth-child(3)").element_handle()
    newest = table.locator("tr:first-child td:nth-child(2)").inner_text()
    traffic(system, 2_000)
    expect(table.locator("tr:first-child td:nth-child(2)")).not_to_have_text(newest)
    assert row.evaluate("row => row.isConnected")
    expect(page.locator("#plot-confidence tbody")).to_be_visible()


def test_a_dialog__gives_the_focus_back_to_a_row_that_changed_meanwhile(system: System, api: Api, visit: Open) -> None:
    api.set_rules(FIRING)
    visited = visit(system, window="15m")
    page = visited.page
    page.evaluate("token => sessionStorage.setItem('sluice-admin-token', token)", api.token)
    visited.live()
    edit = page.get_by_role("button", name="Edit always")
    edit.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    figure = page.locator("[data-rule=always] .figure")
    before = figure.inner_text()
    traffic(system)
    expect(figure).not_to_have_text(before)
    page.keyboard.press("Escape")
    expect(edit).to_be_focused()
    edit.press("Enter")
    page.get_by_role("button", name="Delete").click()
    expect(edit).to_have_count(0)
    expect(page.locator("#alerts")).to_be_focused()


def test_a_button_that_is_at_work__keeps_the_focus(system: System, api: Api, visit: Open) -> None:
    api.set_rules(FIRING)
    visited = visit(system)
    page = visited.page
    page.evaluate("token => sessionStorage.setItem('sluice-admin-token', token)", api.token)
    visited.live()
    predict = page.get_by_role("button", name="Predict")
    predict.press("Enter")
    expect(page.locator("#prediction .answer")).to_be_visible()
    expect(predict).to_be_focused()
    page.get_by_role("button", name="Generate report").press("Enter")
    expect(page.locator("#report .lead")).to_be_visible()
    expect(page.get_by_role("button", name="Regenerate")).to_be_focused()
    page.get_by_role("button", name="Edit always").click()
    page.route("**/metrics/thresholds", away)
    save = page.get_by_role("button", name="Save")
    save.press("Enter")
    expect(page.get_by_role("dialog").get_by_role("alert")).to_be_visible()
    expect(save).to_be_focused()


def test_what_fires_still__is_shaded_up_to_now_by_the_servers_clock(system: System, api: Api, visit: Open) -> None:
    aggregate, _ = api.ask("POST", "/metrics/aggregated", {"window": "1h"})
    shaded = """async (aggregate) => {
      const { Plots } = await import(own("plots.js"));
      const plots = new Plots(document.createElement("div"));
      Date.now = () => Date.parse(aggregate.range.start); // an hour behind
      const firing = { rule: { metric: "latency_ms.p95" }, firing_at: aggregate.series[50].at, resolved_at: null };
      plots.show(aggregate, [firing]);
      const [[from, to]] = plots.timed[1].spans;
      return to - from;
    }"""
    assert visit(system).page.evaluate(shaded, aggregate) > 60


def test_the_title_of_a_hidden_page__follows_what_fires(system: System, api: Api, visit: Open) -> None:
    api.set_rules(FIRING)
    visited = visit(system, script=MINUTES_FLY)
    page = visited.page
    expect(page).to_have_title("● Firing: always – Sluice")
    page.evaluate(LOOK, "hidden")
    api.set_rules()
    expect(page).to_have_title("Sluice")
    api.set_rules(FIRING)
    expect(page).to_have_title("● Firing: always – Sluice")
