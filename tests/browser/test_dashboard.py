"""Looking: figures that move by themselves, windows, themes, phones, tables, and what the page weighs."""

import json
import re
from collections.abc import Callable
from typing import Final

import pytest
from browser.conftest import Api, Visit
from playwright.sync_api import CDPSession, Page, Route, expect
from system import System

Open = Callable[..., Visit]
Take = Callable[[Page, str], None]

PHONE = {"width": 360, "height": 740, "is_mobile": True, "has_touch": True}
DRAWN = 5  # times
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


def test_over_the_limit__it_says_how_long_to_wait(system: System, visit: Open) -> None:
    page = visit(system).page
    refused = page.evaluate(
        """async () => {
          const body = JSON.stringify({ text: "fine" });
          const headers = { "Content-Type": "application/json" };
          const ask = () => fetch("/predict", { method: "POST", headers, body });
          const answers = await Promise.all(Array.from({ length: 61 }, ask));
          return answers.filter((answer) => answer.status === 429).length;
        }"""
    )
    assert refused == 1
    page.get_by_role("button", name="Predict").click()
    limited = page.locator("#prediction .notice")
    expect(limited).to_contain_text("Limit reached")
    expect(limited).to_contain_text("At most 60 in any 60 s.")
    expect(limited).to_contain_text(re.compile(r"The next one is taken at \d\d:\d\d:\d\d, in \d+ s\."))
    expect(page.locator("#try button.primary")).to_have_text(re.compile(r"^Wait \d+ s$"))
    expect(page.locator("#try button.primary")).to_be_disabled()


def test_a_text_that_cannot_be_scored__names_the_field(system: System, visit: Open) -> None:
    page = visit(system).page
    page.get_by_label("Text").fill("   ")
    page.get_by_role("button", name="Predict").click()
    expect(page.locator("#prediction .notice")).to_contain_text("text:")
    expect(page.get_by_role("button", name="Predict")).to_be_enabled()


def test_another_window__is_shown_kept_in_the_address_and_followed(system: System, visit: Open) -> None:
    visited = visit(system)
    page = visited.page
    visited.live()
    expect(page.locator("#scope")).to_contain_text("in the last hour")
    page.get_by_text("24h", exact=True).click()
    expect(page.locator("#scope")).to_contain_text("in the last 24 hours")
    visited.live()
    page.reload()
    expect(page.get_by_label("24h")).to_be_checked()
    page.get_by_label("24h").press("ArrowRight")
    expect(page.locator("#scope")).to_contain_text("in the last 7 days")


def test_going_back__shows_the_window_that_the_address_names(system: System, visit: Open) -> None:
    visited = visit(system)
    page = visited.page
    visited.live()
    page.get_by_role("link", name="Report").click()
    page.get_by_text("24h", exact=True).click()
    expect(page.locator("#scope")).to_contain_text("in the last 24 hours")
    page.go_back()
    assert page.url.endswith("?window=1h")
    expect(page.get_by_label("1h")).to_be_checked()
    expect(page.locator("#scope")).to_contain_text("in the last hour")


def test_a_window_that_there_is_not__is_the_usual_one(system: System, visit: Open) -> None:
    visited = visit(system, window="<script>")
    visited.live()
    expect(visited.page.get_by_label("1h")).to_be_checked()


def test_tables__say_what_the_plots_show(system: System, visit: Open, api: Api) -> None:
    visited = visit(system, window="6h")
    visited.live()
    page = visited.page
    page.locator("#plot-latency summary").click()
    aggregate, _ = api.ask("POST", "/metrics/aggregated", {"window": "6h"})
    shown = page.locator("#plot-latency tbody tr:nth-child(30) td:nth-child(2)").inner_text()
    medians = {
        f"{point['p50']:.1f} ms" if point["p50"] >= 10 else f"{point['p50']:.2f} ms" for point in aggregate["series"]
    }
    assert shown in medians
    for name in ("POSITIVE", "NEGATIVE"):
        expect(page.locator("#plot-labels").get_by_role("rowheader", name=name)).to_be_visible()


def test_an_ordinary_day__in_light_and_dark(system: System, visit: Open, picture: Take) -> None:
    visited = visit(system, height=1130)
    page = visited.page
    visited.live()
    expect(page.locator("h1")).to_have_text("All within limits")
    expect(page.locator("#plots figure[data-state=ready]")).to_have_count(6)
    picture(page, "dashboard-light")
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.emulate_media(color_scheme="dark")
    dark = page.evaluate(background)
    assert light != dark
    expect(page.locator("#plots figure[data-state=ready]")).to_have_count(6)
    picture(page, "dashboard-dark")
    page.get_by_role("button", name="Theme: auto").click()
    assert page.evaluate(background) == light
    page.reload()
    expect(page.get_by_role("button", name="Theme: light")).to_be_visible()
    assert page.evaluate(background) == light


def test_a_phone__has_no_sideways_scroll_anywhere(system: System, visit: Open, picture: Take) -> None:
    visited = visit(system, **PHONE)
    page = visited.page
    visited.live()
    expect(page.locator("#plots figure[data-state=ready]")).to_have_count(6)
    assert page.evaluate(OVERFLOW) == 0
    picture(page, "dashboard-phone")
    for summary in page.locator("summary").all():
        summary.click()
    page.get_by_role("button", name="Predict").click()
    page.get_by_role("button", name="Write report").click()
    expect(page.locator("#report .lead")).to_be_visible()
    assert page.evaluate(OVERFLOW) == 0
    page.get_by_role("button", name="Edit error-rate").click()
    expect(page.get_by_role("dialog")).to_be_in_viewport()
    assert page.evaluate(OVERFLOW) == 0


def test_a_report__has_evidence_that_leads_to_its_plot(system: System, visit: Open) -> None:
    visited = visit(system)
    page = visited.page
    visited.live()
    page.get_by_role("button", name="Write report").click()
    expect(page.locator("#report .byline")).to_contain_text("Written by rules, because no GEMINI_API_KEY is set")
    chip = page.locator('#report .chip[data-metric="latency_ms.p95"]').first
    chip.focus()
    page.keyboard.press("Enter")
    plot = page.locator("#plot-latency")
    expect(plot).to_be_focused()
    expect(plot).to_have_class(re.compile("highlight"))
    expect(plot).to_be_in_viewport()
    page.locator('#report .chip[data-metric="error_rate"]').first.click()
    expect(page.locator("#plot-rates")).to_have_class(re.compile("highlight"))


FIGURES = """figures => import("/dashboard/any/format.js").then(
  ({ figureValue }) => figures.map(([value, unit, window]) => figureValue({ value, unit, window })))"""


def test_a_change__has_its_sign_and_what_it_is_measured_in(system: System, visit: Open) -> None:
    shown = {
        (0.05, "share", "current"): "5.00 %",
        (0.05, "share", "delta_abs"): "+5.00 percentage points",
        (-0.3, "share", "delta_abs"): "-30.0 percentage points",
        (500, "percent", "delta_pct"): "+500.0 %",
        (-5, "percent", "delta_pct"): "-5.0 %",
        (3000, "count", "delta_abs"): "+3,000",
        (132, "ms", "delta_abs"): "+132 ms",
        (-50_000, "ms", "delta_abs"): "-50.0 s",
        (-320.4, "per_s", "delta_abs"): "-320 /s",
        (1 / 3600, "per_s", "current"): "0.00028 /s",
        (0.0004, "per_s", "threshold"): "0.0004 /s",
        (0, "per_s", "current"): "0 /s",
        (0.00001, "share", "current"): "0.001 %",
    }
    assert visit(system).page.evaluate(FIGURES, [*map(list, shown)]) == [*shown.values()]


def test_a_hundred_thousand_points__are_drawn_without_a_stall_and_the_table_stays_short(
    system: System, visit: Open
) -> None:
    visited = visit(system)
    page = visited.page
    visited.live()
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})  # of the processor: others may have it meanwhile
    before_s = task_s(session)
    drawn = page.evaluate(
        """async (times_drawn) => {
          const folder = document.querySelector('script[type=module]').src.replace('app.js', '');
          const { Plot } = await import(`${folder}plot.js`);
          const plot = new Plot({ id: "many", title: "Many", hint: "", empty: "", format: String,
            series: ["a", "b", "c"].map((label) => ({ label, colour: "--series-1" })) });
          document.getElementById("plots").append(plot.figure);
          const times = Array.from({ length: 100_000 }, (_, i) => 1_790_000_000 + i);
          const line = (k) => times.map((_, i) => 2 + Math.sin(i / 500 + k));
          plot.figure.querySelector("details").open = true;
          await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
          for (let k = 0; k < times_drawn; k++) {
            plot.show(times, [line(k), line(k + 1), line(k + 2)]);
            await new Promise(requestAnimationFrame);
          }
          const canvas = plot.figure.querySelector("canvas");
          const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
          return { inked: pixels.filter((value, i) => i % 4 === 3 && value > 0).length,
            rows: plot.figure.querySelectorAll("tbody tr").length,
            note: plot.figure.querySelector("caption").textContent };
        }""",
        DRAWN,
    )
    assert (task_s(session) - before_s) / DRAWN < 0.25
    assert drawn["inked"] > 10_000
    assert drawn["rows"] == 60
    assert drawn["note"] == "Many: the latest 60 of 100000"


def task_s(session: CDPSession) -> float:
    """Processor time of the page's thread so far."""
    metrics = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
    return float(metrics["TaskDuration"])


def test_the_page__is_small_and_loaded_once(system: System, visit: Open) -> None:
    visited = visit(system)
    page = visited.page
    visited.live()
    sizes = "performance.getEntries().filter(e => e.transferSize && e.name.includes('/dashboard'))"
    assert 10_000 < page.evaluate(f"{sizes}.reduce((sum, e) => sum + e.transferSize, 0)") < 150 * 1024
    page.reload()
    visited.live()
    assert page.evaluate(f"{sizes}.length") == 1  # the page itself is asked for again; 304


@pytest.mark.parametrize("path", ["/dashboard/", "/dashboard"])
def test_the_address__works_with_and_without_a_slash(system: System, visit: Open, path: str) -> None:
    visited = visit(system)
    visited.page.goto(system.url + path)
    visited.live()


def test_a_text_that_is_too_long__is_refused_and_not_cut(system: System, visit: Open) -> None:
    page = visit(system).page
    page.get_by_label("Text").focus()
    page.keyboard.insert_text("x" * 10_001)
    page.get_by_role("button", name="Predict").click()
    expect(page.locator("#prediction .notice")).to_contain_text("text:")


def test_times__tell_their_zone_their_day_and_the_hour_that_comes_twice(system: System, visit: Open) -> None:
    visited = visit(system, window="7d", timezone_id="Asia/Kathmandu")
    page = visited.page
    visited.live()
    expect(page.locator("#zone")).to_have_text(re.compile(r"^Times are in Asia/Kath?mandu, UTC\+05:45$"))
    page.locator("#plot-latency .u-over").hover()
    expect(page.locator("#plot-latency .legend-at")).to_have_text(re.compile(r"^\d{1,2} \w+, \d\d:\d\d:\d\d"))
    page = visit(system, timezone_id="Europe/Berlin").page
    shown = page.evaluate(
        """() => import("/dashboard/any/format.js").then(({ dateTime }) =>
          ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"].map(dateTime))"""
    )
    assert [text.startswith("25 Oct, 02:30:00") for text in shown] == [True, True]
    assert shown[0] != shown[1]


def test_a_limit__is_told_as_it_was_set(system: System, visit: Open) -> None:
    told = {
        ("latency_ms.p95", 512.5, 90): "p95 latency above 512.5 ms over 5 minutes, for 90 s",
        ("latency_ms.p95", 15_250, 3600): "p95 latency above 15.25 s over 5 minutes, for 1 h",
        ("error_rate", 0.00125, 150): "Error rate above 0.125 % over 5 minutes, for 150 s",
        ("error_rate", 0.07, 120): "Error rate above 7 % over 5 minutes, for 2 min",
        ("confidence.mean", 0.9995, 0): "Mean confidence above 0.9995 over 5 minutes",
        ("throughput_per_s", 0.125, 0): "Throughput above 0.125 /s over 5 minutes",
        ("requests", 10_000, 0): "Requests above 10,000 over 5 minutes",
    }
    sentences = """rules => import("/dashboard/any/rules.js").then(({ sentence }) =>
      rules.map(([metric, above, for_s]) => sentence({ metric, above, for_s, window: "5m" })))"""
    assert visit(system).page.evaluate(sentences, [*map(list, told)]) == [*told.values()]


def test_on_paper__it_is_light_whatever_is_chosen_and_no_plot_is_cut(system: System, visit: Open) -> None:
    visited = visit(system, color_scheme="dark", script="localStorage.setItem('sluice-theme', 'dark')")
    page = visited.page
    visited.live()
    look = """name => {
      dispatchEvent(new Event(name));
      return getComputedStyle(document.querySelector("h1")).color;
    }"""
    dark = page.evaluate("getComputedStyle(document.querySelector('h1')).color")
    page.emulate_media(media="print")
    assert page.evaluate(look, "beforeprint") == "rgb(22, 35, 42)"
    expect(page.get_by_role("button", name="Write report")).to_be_hidden()
    fits = """() => {
      const place = document.querySelector("#plot-latency .canvas");
      place.style.width = "150px"; // paper is narrower than the screen that it was drawn for
      return place.querySelector("canvas").getBoundingClientRect().width;
    }"""
    assert page.evaluate(fits) == 150
    page.emulate_media(media="screen")
    assert page.evaluate(look, "afterprint") == dark


@pytest.mark.parametrize("width", [320, 360, 768, 1280])
def test_no_figure_is_cut_or_broken_by_a_narrow_panel(system: System, visit: Open, width: int) -> None:
    visited = visit(system, width=width)
    page = visited.page
    visited.live()
    expect(page.locator("#plots figure[data-state=ready]")).to_have_count(6)
    expect(page.locator("#system tr")).to_have_count(7)
    cut = """() => [...document.querySelectorAll(".shares .scroll, #system .scroll, .panel-head > div")]
      .filter((one) => one.scrollWidth > one.clientWidth).map((one) => one.textContent)"""
    assert page.evaluate(cut) == []
    heights = "() => [...document.querySelectorAll('#system tr, .shares tr')].map((one) => one.offsetHeight)"
    assert max(page.evaluate(heights)) < 90


LONG: Final = "l" * 200
RIGHT_TO_LEFT: Final = "\u0625\u064a\u062c\u0627\u0628\u064a"


def test_labels_that_are_many_long_or_run_from_the_right__leave_the_page_its_shape(system: System, visit: Open) -> None:
    visited = visit(system)
    page = visited.page
    visited.live()
    lines = "() => document.querySelector('#plot-labels tbody tr').offsetHeight"
    assert page.evaluate(lines) < 45  # of ordinary names, one

    def renamed(route: Route) -> None:
        answer = route.fetch()
        body = answer.json()
        body["scores"] = {RIGHT_TO_LEFT: 0.9, LONG: 0.1}
        route.fulfill(response=answer, body=json.dumps(body))

    page.route("**/predict", renamed)
    page.get_by_role("button", name="Predict").click()
    expect(page.get_by_role("rowheader", name=LONG)).to_be_visible()
    assert page.evaluate(OVERFLOW) == 0
    drawn = page.evaluate(
        """async ([long, aside]) => {
          const { Labels } = await import("/dashboard/any/shares.js");
          const labels = new Labels();
          document.getElementById("plot-labels").replaceWith(labels.figure);
          const names = [long, aside, ...Array.from({ length: 26 }, (_, i) => `label ${i}`)];
          labels.show({ labels: names.map((label) => ({ label, share: 1 / 28, count: 1 })), previous: { labels: [] } });
          const region = labels.figure.querySelector(".scroll");
          return [region.scrollWidth - region.clientWidth, labels.figure.offsetHeight];
        }""",
        [LONG, RIGHT_TO_LEFT],
    )
    assert drawn[0] == 0
    assert drawn[1] < 500
    page.get_by_role("button", name="Write report").click()
    apart = "getComputedStyle(document.querySelector('#report .chip > .muted')).unicodeBidi"
    expect(page.locator("#report .chip").first).to_be_visible()
    assert page.evaluate(apart) == "isolate"


def test_ten_million__fit_their_tile(system: System, visit: Open) -> None:
    visited = visit(system, width=1280)
    page = visited.page
    visited.live()
    page.route("**/metrics/stream*", lambda route: route.abort())

    def crowded(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, body=json.dumps({**answer.json(), "predictions": 12_345_678}))

    page.route("**/metrics/aggregated", crowded)
    page.reload()
    value = page.locator("[data-tile=predictions] .tile-value")
    expect(value).to_have_text("12.35M")
    expect(page.locator("#scope")).to_contain_text("12,345,678 answered predictions")
    inside = "one => one.getBoundingClientRect().right <= one.closest('.tile').getBoundingClientRect().right"
    assert value.evaluate(inside)
