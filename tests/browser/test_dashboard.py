"""Looking: figures that move by themselves, windows, themes, phones, tables, and what the page weighs."""

import re
import time
from collections.abc import Callable

import pytest
from browser.conftest import Api, Visit
from playwright.sync_api import CDPSession, Page, expect
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
    expect(limited).to_contain_text(re.compile(r"Try again at \d\d:\d\d:\d\d, in \d+ s\."))
    expect(page.locator("#try button.primary")).to_have_text(re.compile(r"^Wait \d+ s$"))
    expect(page.locator("#try button.primary")).to_be_disabled()


def test_a_text_that_cannot_be_scored__names_the_field(system: System, visit: Open) -> None:
    page = visit(system).page
    page.get_by_label("Text", exact=True).fill("   ")
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


def test_a_fixed_range__is_zoomed_into_kept_in_the_address_and_left_by_going_back(system: System, visit: Open) -> None:
    visited = visit(system)
    page = visited.page
    visited.live()
    plot = page.locator("#plot-latency .u-over")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    assert box is not None
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * 0.25, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.5, y, steps=5)
    page.mouse.up()
    expect(page.locator("#scope")).to_have_text(re.compile(r"in \d+ \w+, [\d:]+ to \d+ \w+, [\d:]+$"))
    expect(page.locator("#windows input:checked")).to_have_count(0)
    address, scope = page.url, page.locator("#scope").inner_text()
    assert "start=" in address
    page.get_by_role("button", name="Generate report").click()
    expect(page.locator("#report")).to_contain_text("Reports are of whole 5 minutes")
    page.reload()
    expect(page.locator("#scope")).to_have_text(scope)
    page.go_back()
    expect(page.locator("#scope")).to_contain_text("in the last hour")
    visited.live()
    page.get_by_role("button", name="Fix range").click()
    expect(page.locator("#scope")).to_have_text(re.compile(r" to \d+ \w+, "))
    page.get_by_text("15m", exact=True).click()
    visited.live()


def test_the_least_confident_predictions__are_listed_filtered_and_marked_wrong(
    system: System, visit: Open, api: Api
) -> None:
    answer, _ = api.ask("POST", "/predict", {"text": "A dull, endless film, number 7."})
    visited = visit(system, window="5m")
    page = visited.page
    visited.live()
    panel = page.locator("#predictions")
    panel.get_by_role("button", name="List").click()
    page.get_by_role("dialog").get_by_label("Token", exact=True).fill(api.token)
    page.get_by_role("button", name="Use token").click()
    expect(panel.locator("tbody tr").first).to_be_visible()
    scores = [float(one) for one in panel.locator("tbody td:nth-child(3)").all_inner_texts() if one != "–"]
    assert scores == sorted(scores)
    panel.get_by_label("Request ID").fill(answer["request_id"])
    panel.get_by_role("button", name="List").click()
    expect(panel.locator("tbody tr")).to_have_count(1)
    before, _ = api.ask("POST", "/metrics/aggregated", {"window": "5m", "filters": {"label": "NEGATIVE"}})
    panel.get_by_role("button", name="This was wrong").click()
    expect(panel.get_by_role("status")).to_contain_text("recorded, POSITIVE")
    time.sleep(1.1)  # an answer is given again for a second
    after, _ = api.ask("POST", "/metrics/aggregated", {"window": "5m", "filters": {"label": "NEGATIVE"}})
    assert after["feedback"]["n"] == before["feedback"]["n"] + 1
    expect(panel).to_contain_text("with a true label")
    page.get_by_role("button", name=re.compile("list NEGATIVE")).click()
    expect(panel.get_by_label("Label", exact=True)).to_have_value("NEGATIVE")
    expect(panel.get_by_label("Order")).to_have_value("time")
    expect(panel.locator("tbody tr")).not_to_have_count(0)
    panel.get_by_label("Score up to").fill("2")
    panel.get_by_role("button", name="List").click()
    expect(panel.get_by_role("status")).to_contain_text("max_score:")


def test_one_value_alone__is_drawn(system: System, visit: Open) -> None:
    inked = """async () => {
      const { Plot } = await import(own("plot.js"));
      const plot = new Plot({ id: "one", title: "One", hint: "", empty: "", format: String,
        series: [{ label: "a", colour: "--series-1" }] });
      document.getElementById("plots").append(plot.figure);
      await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
      const times = Array.from({ length: 400 }, (_, i) => 1_790_000_000 + i * 10);
      plot.show(times, [times.map((_, i) => (i === 200 ? 5 : null))]);
      await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
      const canvas = plot.figure.querySelector("canvas");
      const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
      const isBlue = (i) => pixels[i] === 0 && pixels[i + 1] === 0x72 && pixels[i + 2] === 0xb2;
      return pixels.filter((_, i) => i % 4 === 0 && isBlue(i)).length;
    }"""
    assert visit(system).page.evaluate(inked) > 5


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
        f"{point['p50']:.1f} ms" if point["p50"] >= 9.995 else f"{point['p50']:.2f} ms"
        for point in aggregate["series"]
        if point["p50"] is not None  # nothing was predicted then
    }
    assert shown in medians
    for name in ("POSITIVE", "NEGATIVE"):
        expect(page.locator("#plot-labels").get_by_role("rowheader", name=name)).to_be_visible()


def test_an_ordinary_day__in_light_and_dark(system: System, visit: Open, picture: Take) -> None:
    visited = visit(system, height=1130)
    page = visited.page
    visited.live()
    expect(page.locator("h1")).to_have_text("All thresholds OK")
    expect(page.locator("#plots figure[data-state=ready]")).to_have_count(9)
    picture(page, "dashboard-light")
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.emulate_media(color_scheme="dark")
    dark = page.evaluate(background)
    assert light != dark
    expect(page.locator("#plots figure[data-state=ready]")).to_have_count(9)
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
    expect(page.locator("#plots figure[data-state=ready]")).to_have_count(9)
    assert page.evaluate(OVERFLOW) == 0
    picture(page, "dashboard-phone")
    for summary in page.locator("summary").all():
        summary.click()
    page.get_by_role("button", name="Predict").click()
    page.get_by_role("button", name="Generate report").click()
    expect(page.locator("#report .lead")).to_be_visible()
    assert page.evaluate(OVERFLOW) == 0
    page.get_by_role("button", name="Edit error-rate").click()
    expect(page.get_by_role("dialog")).to_be_in_viewport()
    assert page.evaluate(OVERFLOW) == 0


def test_a_report__has_evidence_that_leads_to_its_plot(system: System, visit: Open) -> None:
    visited = visit(system)
    page = visited.page
    visited.live()
    page.get_by_role("button", name="Generate report").click()
    expect(page.locator("#report .byline")).to_contain_text("Selected by rules, because no GEMINI_API_KEY is set")
    chip = page.locator('#report .chip[data-metric="latency_ms.p95"]').first
    chip.focus()
    page.keyboard.press("Enter")
    plot = page.locator("#plot-latency")
    expect(plot).to_be_focused()
    expect(plot).to_have_class(re.compile("highlight"))
    expect(plot).to_be_in_viewport()
    page.locator('#report .chip[data-metric="error_rate"]').first.click()
    expect(page.locator("#plot-rates")).to_have_class(re.compile("highlight"))


FIGURES = """figures => import(own("format.js")).then(
  ({ figureValue }) => figures.map(([value, unit, window]) => figureValue({ value, unit, window })))"""


def test_a_change__has_its_sign_and_what_it_is_measured_in(system: System, visit: Open) -> None:
    shown = {
        (0.05, "share", "current"): "5.00 %",
        (0.05, "share", "delta_abs"): "+5.00 percentage points",
        (-0.3, "share", "delta_abs"): "-30.0 percentage points",
        (500, "percent", "delta_pct"): "+500 %",
        (-5, "percent", "delta_pct"): "-5.00 %",
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
    assert (task_s(session) - before_s) / DRAWN < 0.5
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
    page.get_by_label("Text", exact=True).focus()
    page.keyboard.insert_text("x" * 10_001)
    page.get_by_role("button", name="Predict").click()
    expect(page.locator("#prediction .notice")).to_contain_text("text:")
