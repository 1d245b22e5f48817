"""The API page in a real browser: it loads nothing from other origins, and its requests reach the services."""

import asyncio
from collections.abc import Iterator
from typing import Final

import pytest
from chromium import chromium
from playwright.sync_api import ConsoleMessage, Locator, Page, Request, expect
from system import System

# Not a local name, because Swagger UI then skips its requests to other servers.
NAMED: Final = "--host-resolver-rules=MAP sluice.test 127.0.0.1"
PATIENCE_MS: Final = 60_000  # on a busy machine


@pytest.fixture
def page(system: System) -> Iterator[Page]:
    """The opened page. At the end, no other origin was requested and the console shows no complaint."""
    origin = f"http://sluice.test:{system.port_base}"
    elsewhere: list[str] = []
    complaints: list[str] = []

    def check_origin(request: Request) -> None:
        if not request.url.startswith((origin, "data:")):
            elsewhere.append(request.url)

    def record_complaint(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and "the server responded with a status of 401" not in message.text:
            complaints.append(message.text)

    asyncio.run(system.specification())  # complete, and cached for the page
    with chromium(NAMED) as browser:
        opened = browser.new_page()
        opened.set_default_timeout(PATIENCE_MS)
        expect.set_options(timeout=PATIENCE_MS)
        opened.on("request", check_origin)
        opened.on("console", record_complaint)
        opened.on("pageerror", lambda error: complaints.append(str(error)))
        opened.goto(f"{origin}/docs")
        yield opened
    assert (elsewhere, complaints) == ([], [])


def test_page__lists_every_service(page: Page) -> None:
    for service in ("edge", "inference", "metrics", "analyst"):
        expect(page.locator(f"#operations-tag-{service}")).to_be_visible()


def test_trying_a_prediction__shows_the_answer_and_its_limit(page: Page) -> None:
    answer = try_out(page, "inference", "inference_predict")
    expect(answer).to_contain_text('"label": "POSITIVE"')
    expect(answer).to_contain_text('ratelimit-policy: "scoring"')


def test_path_of_a_model__is_filled_in_and_found(page: Page) -> None:
    expect(try_out(page, "inference", "inference_infer")).to_contain_text('"model_name": "sluice-sentiment-minilm"')


def test_write__is_refused_until_the_token_is_given(page: Page, token: str) -> None:
    expect(try_out(page, "metrics", "metrics_replace_thresholds")).to_contain_text("Send the admin token")
    page.locator(".auth-wrapper .authorize").first.click()
    page.get_by_label("auth-bearer-value").fill(token)
    page.locator(".modal-ux .auth-btn-wrapper .authorize").click()
    page.locator(".modal-ux .btn-done").click()
    operation = page.locator("#operations-metrics-metrics_replace_thresholds")
    operation.get_by_role("button", name="Execute").click()
    expect(response_of(operation)).to_contain_text("etag")


def try_out(page: Page, tag: str, operation_id: str) -> Locator:
    """Send the request that the page suggests, and return its response."""
    operation = page.locator(f"#operations-{tag}-{operation_id}")
    operation.locator(".opblock-summary-control").click()
    operation.get_by_role("button", name="Try it out").click()
    operation.get_by_role("button", name="Execute").click()
    return response_of(operation)


def response_of(operation: Locator) -> Locator:
    return operation.locator(".live-responses-table")
