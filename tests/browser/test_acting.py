"""Acting: thresholds with their conflicts, alerts that fire and resolve."""

import re
from collections.abc import Callable
from typing import Any

from browser.conftest import CALM, SLOW, Api, Visit
from playwright.sync_api import Locator, Page, Route, expect
from system import System

Open = Callable[..., Visit]
Take = Callable[[Page, str], None]


def rules(api: Api) -> dict[str, dict[str, Any]]:
    return {rule["name"]: rule for rule in api.ask("GET", "/metrics/thresholds")[0]["rules"]}


def field(page: Page, label: str) -> Locator:
    return page.get_by_role("dialog").get_by_label(label, exact=True)


def give_token(page: Page, token: str) -> None:
    field(page, "Token").fill(token)
    page.get_by_role("button", name="Use token").click()


def edit(page: Page, name: str) -> None:
    page.get_by_role("button", name=f"Edit {name}").click()
    expect(page.get_by_role("heading", name=f"Edit {name}")).to_be_visible()


def test_a_threshold__is_edited_and_the_token_stays_in_the_tab(system: System, api: Api, visit: Open) -> None:
    visited = visit(system)
    page = visited.page
    visited.live()
    edit(page, "latency-p95")
    field(page, "Limit").fill("450")
    page.get_by_role("button", name="Save").click()
    give_token(page, "wrong")
    expect(page.get_by_text("That token was rejected.")).to_be_visible()
    assert rules(api)["latency-p95"]["above"] == 500
    give_token(page, api.token)
    expect(page.locator('[data-rule="latency-p95"]')).to_contain_text("p95 latency above 450 ms over 5 minutes")
    assert rules(api)["latency-p95"]["above"] == 450
    edit(page, "error-rate")  # the token is not asked for again
    page.get_by_role("button", name="Delete").click()
    expect(page.locator('[data-rule="error-rate"]')).to_have_count(0)
    assert list(rules(api)) == ["latency-p95"]
    page.get_by_role("button", name="Undo").click()
    expect(page.locator('[data-rule="error-rate"]')).to_be_visible()
    assert rules(api)["error-rate"]["above"] == CALM["above"]
    assert page.evaluate("Object.values(localStorage).concat(document.cookie).join()").find(api.token) == -1
    page.get_by_role("button", name="Forget token").click()
    assert page.evaluate("sessionStorage.length") == 0


def test_what_is_wrong__stands_beside_its_field_and_nothing_is_saved(system: System, api: Api, visit: Open) -> None:
    visited = visit(system)
    page = visited.page
    page.evaluate("token => sessionStorage.setItem('sluice-admin-token', token)", api.token)
    visited.live()
    page.get_by_role("button", name="Add").click()
    field(page, "Name").fill("Not a name!")
    field(page, "Limit").fill("many")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#rule-limit-help")).to_have_text("Must be a number.")
    expect(page.locator("#rule-name-help")).to_contain_text("lower-case letters")  # all at once
    field(page, "Limit").fill("1,000")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#rule-limit-help")).to_contain_text("without separators")
    field(page, "Limit").fill("0,2")
    field(page, "Minimum samples").fill("-4")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#rule-min_samples-help")).to_contain_text("0 or more")
    expect(field(page, "Name")).to_be_focused()
    expect(field(page, "Name")).to_have_attribute("aria-invalid", "true")
    expect(page.locator("#rule-limit-help")).not_to_have_class(re.compile("error"))
    field(page, "Name").fill("tail")
    field(page, "Minimum samples").fill("4")
    field(page, "Resolves at").fill("300")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#rule-resolve_at-help")).to_contain_text("must be on the healthy side")
    assert list(rules(api)) == ["error-rate", "latency-p95"]
    field(page, "Resolves at").fill("")
    page.get_by_role("button", name="Save").click()
    expect(page.locator('[data-rule="tail"]')).to_be_visible()
    assert rules(api)["tail"]["above"] == 0.2


def test_a_share__is_entered_in_percent_and_a_drift_alone_has_a_reference(
    system: System, api: Api, visit: Open
) -> None:
    visited = visit(system)
    page = visited.page
    page.evaluate("token => sessionStorage.setItem('sluice-admin-token', token)", api.token)
    visited.live()
    edit(page, "error-rate")
    expect(field(page, "Limit")).to_have_value("50")
    expect(page.get_by_role("dialog").locator(".unit").first).to_have_text("%")
    expect(field(page, "Compared with")).to_be_hidden()
    field(page, "Metric").select_option("drift.labels")
    expect(field(page, "Compared with")).to_have_value("24h")
    field(page, "Metric").select_option("error_rate")
    field(page, "Limit").fill("500")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#rule-limit-help")).to_contain_text("between 0 and 100 %")
    field(page, "Limit").fill("7")
    page.get_by_role("button", name="Save").click()
    expect(page.locator('[data-rule="error-rate"]')).to_contain_text("Error rate above 7 %")
    assert rules(api)["error-rate"]["above"] == 0.07


def test_a_name_that_is_taken__is_refused_and_the_rule_of_that_name_stays(
    system: System, api: Api, visit: Open
) -> None:
    visited = visit(system)
    page = visited.page
    page.evaluate("token => sessionStorage.setItem('sluice-admin-token', token)", api.token)
    visited.live()
    page.get_by_role("button", name="Add").click()
    field(page, "Name").fill("error-rate")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#rule-name-help")).to_contain_text("A rule with this name exists already")
    page.keyboard.press("Escape")
    edit(page, "latency-p95")
    field(page, "Name").fill("error-rate")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#rule-name-help")).to_contain_text("A rule with this name exists already")
    assert {name: rule["metric"] for name, rule in rules(api).items()} == {
        "error-rate": "error_rate",
        "latency-p95": "latency_ms.p95",
    }


def test_a_token_that_no_header_takes__is_named_before_it_is_sent(system: System, api: Api, visit: Open) -> None:
    api.set_rules(CALM)
    visited = visit(system)
    page = visited.page
    visited.live()
    edit(page, "error-rate")
    page.get_by_role("button", name="Save").click()
    give_token(page, "schlüssel‑☃")
    expect(page.get_by_role("alert").filter(has_text="A token has only")).to_be_visible()
    give_token(page, f" {api.token}\t")
    expect(page.get_by_text("Saved error-rate.")).to_be_visible()


def test_a_conflict__shows_the_newest_version_and_saving_again_keeps_the_other_rules(
    system: System, api: Api, visit: Open
) -> None:
    visited = visit(system)
    page = visited.page
    page.evaluate("token => sessionStorage.setItem('sluice-admin-token', token)", api.token)
    visited.live()
    save = page.get_by_role("button", name="Save")
    edit(page, "latency-p95")
    field(page, "Limit").fill("300")
    field(page, "Name").fill("tail")
    api.set_rules({**CALM, "above": 0.4}, {**SLOW, "above": 800}, {**SLOW, "name": "tail"})
    page.route(
        "**/metrics/thresholds", lambda route: route.abort() if route.request.method == "GET" else route.continue_()
    )
    save.click()
    expect(page.get_by_role("alert").filter(has_text="unavailable now")).to_be_visible()
    expect(save).to_be_enabled()
    page.unroute("**/metrics/thresholds")
    save.click()
    said = page.get_by_role("alert").filter(has_text="someone else changed the thresholds meanwhile")
    expect(said).to_contain_text("latency-p95 is now: p95 latency above 800 ms")
    assert rules(api)["latency-p95"]["above"] == 800
    expect(field(page, "Limit")).to_have_value("300")
    save.click()
    expect(page.locator("#rule-name-help")).to_contain_text("A rule with this name exists already")
    field(page, "Name").fill("tail-2")
    save.click()
    expect(page.locator('[data-rule="tail-2"]')).to_contain_text("above 300 ms")  # and no conflict again
    assert {name: rule["above"] for name, rule in rules(api).items()} == {"error-rate": 0.4, "tail-2": 300, "tail": 500}


def test_an_alert__fires_and_resolves_before_the_eyes(system: System, api: Api, visit: Open, picture: Take) -> None:
    visited = visit(system, height=1130)
    page = visited.page
    visited.live()
    expect(page.locator("h1")).to_have_text("All thresholds OK")
    api.set_rules(CALM, {**SLOW, "window": "1h", "above": 12.0, "resolve_at": 10.0, "severity": "critical"})
    firing = page.locator('[data-rule="latency-p95"][data-state="firing"]')
    expect(firing).to_be_visible()
    expect(page.locator("h1")).to_have_text("Firing: latency-p95")
    expect(page).to_have_title("● Firing: latency-p95 – Sluice")
    expect(firing).to_contain_text("resolves below 10 ms")
    expect(page.locator('[data-tile="latency_ms.p95"]')).to_have_attribute("data-state", "breached")
    picture(page, "dashboard-alert")
    page.get_by_role("button", name="Show the plot of latency-p95").click()
    expect(page.locator("#plot-latency")).to_be_focused()
    api.set_rules(CALM, {**SLOW, "window": "1h", "above": 5_000.0, "severity": "critical"})
    expect(page.locator('[data-resolved="latency-p95"]').first).to_be_visible()
    expect(firing).to_have_count(0)
    expect(page.locator("h1")).to_have_text("All thresholds OK")
    expect(page).to_have_title("Sluice")


def test_thresholds_that_are_read_slowly__open_one_dialog(system: System, api: Api, visit: Open) -> None:
    visited = visit(system)
    page = visited.page
    visited.live()
    held: list[Route] = []
    page.route("**/metrics/thresholds", lambda route: held.append(route))
    page.get_by_role("button", name="Edit error-rate").click()
    expect(page.locator("#alerts [role=status]")).to_have_text("Reading the thresholds…")
    page.get_by_role("button", name="Edit latency-p95").click()
    for route in held:
        route.continue_()
    expect(page.get_by_role("dialog")).to_have_count(1)
    assert len(held) == 1
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_a_change_that_is_refused_after_its_dialog_was_closed__is_said_to_be_so(
    system: System, api: Api, visit: Open
) -> None:
    api.set_rules(CALM)
    visited = visit(system)
    page = visited.page
    page.evaluate("token => sessionStorage.setItem('sluice-admin-token', token)", api.token)
    visited.live()
    edit(page, "error-rate")
    held: list[Route] = []
    page.route("**/metrics/thresholds", lambda route: held.append(route))
    with page.expect_request(lambda request: request.method == "PUT"):
        page.get_by_role("button", name="Save").click()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    held[0].fulfill(status=503, content_type="text/plain", body="away")
    expect(page.locator("#alerts .notice")).to_contain_text("The last change was not saved.")
