"""axe-core finds nothing serious, in either theme, on the page and in its dialogs; and keys are enough."""

from collections.abc import Callable
from typing import Any

import pytest
from browser.conftest import Api, Visit
from playwright.sync_api import Page, expect
from system import System

Open = Callable[..., Visit]

FIRING = {"name": "always", "metric": "requests", "above": 0.0, "window": "24h"}
PENDING = {"name": "soon", "metric": "predictions", "above": 0.0, "window": "24h", "for_s": 3_600}


def violations(page: Page) -> list[tuple[str, str, Any]]:
    """What axe calls serious or critical: rule, impact, and where."""
    found = page.evaluate("async () => (await axe.run(document, { resultTypes: ['violations'] })).violations")
    return [
        (one["id"], one["impact"], [(node["target"], node["failureSummary"]) for node in one["nodes"]])
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize(("scheme", "width"), [("light", 1440), ("dark", 360)])
def test_axe__finds_nothing_serious(system: System, api: Api, visit: Open, axe: str, scheme: str, width: int) -> None:
    api.set_rules(FIRING, PENDING)
    visited = visit(system, width=width, color_scheme=scheme, script=axe, reduced_motion="reduce")
    page = visited.page
    visited.live()
    expect(page.locator('[data-rule="always"][data-state="firing"]')).to_be_visible()
    expect(page.locator('[data-rule="soon"][data-state="pending"]')).to_be_visible()
    for summary in page.locator("summary").all():
        summary.click()
    page.get_by_role("button", name="Predict").click()
    page.get_by_role("button", name="Generate report").click()
    expect(page.locator("#report .findings").first).to_be_visible()
    expect(page.locator("#prediction .answer")).to_be_visible()
    assert violations(page) == []
    page.get_by_role("button", name="Edit always").click()
    name = page.get_by_role("textbox", name="Name")
    name.fill("?")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#rule-name-help.error")).to_be_visible()
    assert violations(page) == []
    name.fill("other")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("dialog").get_by_label("Token", exact=True)).to_be_visible()
    assert violations(page) == []
    page.keyboard.press("Escape")
    expect(page.get_by_role("heading", name="Edit always")).to_be_visible()
    assert violations(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe__finds_nothing_serious_where_things_fail(
    system: System, api: Api, visit: Open, axe: str, scheme: str
) -> None:
    visited = visit(system, color_scheme=scheme, script=axe, reduced_motion="reduce")
    page = visited.page
    visited.live()
    page.route("**/metrics/**", lambda route: route.fulfill(status=503, content_type="text/plain", body="away"))
    page.route("**/health", lambda route: route.abort())
    page.get_by_text("6h", exact=True).click()  # ends the stream too
    expect(page.locator("#live[data-state=stale]")).to_be_visible()
    expect(page.locator("#trouble")).to_contain_text("No figures for the last 6 hours yet")
    expect(page.locator("#alerts .notice")).to_be_visible()
    assert violations(page) == []
    page.reload()
    expect(page.locator("#trouble")).to_contain_text("No figures yet")
    expect(page.locator("#system .notice")).to_be_visible()
    assert violations(page) == []


def test_the_keyboard_alone__reaches_the_content_and_comes_back_from_a_dialog(
    system: System, api: Api, visit: Open
) -> None:
    api.set_rules(FIRING)
    visited = visit(system)
    page = visited.page
    visited.live()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the dashboard")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    opener = page.get_by_role("button", name="Edit always")
    opener.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(opener).to_be_focused()


def test_the_readers_own_colours__leave_the_chosen_window_and_all_that_is_drawn(system: System, visit: Open) -> None:
    visited = visit(system, forced_colors="active", color_scheme="dark")
    page = visited.page
    visited.live()
    expect(page.locator("#plots figure[data-state=ready]")).to_have_count(9)
    ground = """selector => {
      const { backgroundColor, backgroundImage } = getComputedStyle(document.querySelector(selector));
      return backgroundImage === "none" ? backgroundColor : backgroundImage;
    }"""
    panel = page.evaluate(ground, ".panel")
    drawn = (
        ".segments input:checked + span",
        ".swatch",
        ".swatch[data-dash]",
        ".swatch.block",
        ".bar-now",
        ".column-now",
    )
    assert [selector for selector in drawn if page.evaluate(ground, selector) == panel] == []
    halo, ink = page.evaluate(
        """() => import(own("theme.js")).then(({ colour }) => ["--surface", "--bad"].map(colour))"""
    )
    assert halo != ink  # around a limit's name, and of it
