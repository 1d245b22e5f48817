"""Reading: times, limits, figures and labels are whole in any zone, width and script, and on paper."""

import json
import re
from collections.abc import Callable
from typing import Final

import pytest
from browser.conftest import Visit
from playwright.sync_api import Route, expect
from system import System

Open = Callable[..., Visit]

OVERFLOW: Final = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


def test_times__tell_their_zone_their_day_and_the_hour_that_comes_twice(system: System, visit: Open) -> None:
    visited = visit(system, window="7d", timezone_id="Asia/Kathmandu")
    page = visited.page
    visited.live()
    expect(page.locator("#zone")).to_have_text(re.compile(r"^Times are in Asia/Kath?mandu, UTC\+05:45$"))
    page.locator("#plot-latency .u-over").hover()
    expect(page.locator("#plot-latency .legend-at")).to_have_text(re.compile(r"^\d{1,2} \w+, \d\d:\d\d:\d\d"))
    page = visit(system, timezone_id="Europe/Berlin").page
    shown = page.evaluate(
        """() => import(own("format.js")).then(({ dateTime }) =>
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
    sentences = """rules => import(own("rules.js")).then(({ sentence }) =>
      rules.map(([metric, above, for_s]) => sentence({ metric, above, for_s, window: "5m" })))"""
    assert visit(system).page.evaluate(sentences, [*map(list, told)]) == [*told.values()]


def test_names_of_limits_that_are_close__stand_beside_each_other(system: System, visit: Open) -> None:
    drawn = """async () => {
      const { Plot } = await import(own("plot.js"));
      const plot = new Plot({ id: "x", title: "x", series: [] });
      plot.limits = [[500, "critical"], [400, "warning"], [490, "page"], [800, "far"]];
      const ctx = document.createElement("canvas").getContext("2d");
      const found = {};
      ctx.fillText = (name, right, y) => (found[name] = [right - ctx.measureText(name).width, right, y]);
      const [bbox, scales] = [{ left: 0, top: 0, width: 500, height: 100 }, { y: { max: 1000 } }];
      plot.drawLimits({ ctx, bbox, scales, valToPos: (value) => (1000 - value) / 10 });
      return found;
    }"""
    names = visit(system).page.evaluate(drawn)
    assert names["warning"][1] == names["far"][1] == 500
    assert names["page"][1] < names["warning"][0]
    assert names["critical"][1] < names["page"][0]


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
    expect(page.get_by_role("button", name="Generate report")).to_be_hidden()
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
    expect(page.locator("#plots figure[data-state=ready]")).to_have_count(9)
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
          const { Labels } = await import(own("shares.js"));
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
    page.get_by_role("button", name="Generate report").click()
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
