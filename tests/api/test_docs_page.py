"""The page in a real browser, in front of a real server."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from playwright.sync_api import Page, sync_playwright

from api.app import create_app
from api.settings import ApiSettings
from store.settings import StoreSettings

pytestmark = pytest.mark.parametrize("stack", ["sqlite"], indirect=True)


@pytest.fixture
def address(stack: StoreSettings) -> Iterator[str]:
    """Where the service listens."""
    config = uvicorn.Config(create_app(ApiSettings(), stack), port=0, log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.02)
    port: int = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@pytest.fixture
def page() -> Iterator[Page]:
    """A page of the installed browser."""
    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    if browser_path is None:
        pytest.skip("no Chromium is installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=Path(browser_path), args=["--no-sandbox"]
        )
        yield browser.new_page()
        browser.close()


def test_operations_are_shown_and_tried_without_another_host(address: str, page: Page) -> None:
    asked: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on(
        "console",
        lambda message: errors.append(message.text) if message.type == "error" else None,
    )
    page.goto(f"{address}/docs")
    operation = page.locator("#operations-service-retrieveVersion")
    operation.wait_for(timeout=60_000)
    assert page.locator(".opblock").count() > 20
    operation.locator(".opblock-summary").click()
    operation.get_by_role("button", name="Try it out").click()
    operation.get_by_role("button", name="Execute").click()
    answer = operation.locator(".live-responses-table tr.response")
    answer.first.wait_for(timeout=30_000)
    assert answer.first.locator(".response-col_status").inner_text().startswith("200")
    assert '"name": "shortft"' in answer.first.inner_text()
    elsewhere = [url for url in asked if not url.startswith((address, "data:"))]
    assert elsewhere == []
    assert errors == []
