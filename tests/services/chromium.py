"""The Chromium of the machine, which tests of the page drive through Playwright.

Playwright comes from the Python package index and brings no browser here: Debian's package is used. Where there is
none, such tests are skipped with the reason. With CI set in the environment they fail instead, after an attempt to
install it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

import pytest
from playwright.async_api import ConsoleMessage, Dialog, Page, ViewportSize, async_playwright

from tests.services import debian

__all__ = ["Seen", "chromium_path", "open_page"]

Theme = Literal["light", "dark"]
_NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")


def find() -> str | None:
    """The program, from the PATH."""
    return next(filter(None, map(shutil.which, _NAMES)), None)


@pytest.fixture(scope="session")
def chromium_path() -> str:
    """Where Chromium is."""
    if find() is None and os.environ.get("CI"):
        try:
            debian.install("chromium")
        except debian.NotInstalled as error:
            pytest.fail(f"CI is set, so tests of the page must run: {error}", pytrace=False)
    path = find()
    if path is None:
        pytest.skip("Chromium is not installed (Debian: apt install chromium)")
    return path


@dataclass
class Seen:
    """What a page did that it should not.

    Attributes:
        dialogs: texts of the dialogs that came up.
        complaints: errors and warnings of the console, violations of the policy among them, and uncaught exceptions.
    """

    dialogs: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def watch(self, page: Page) -> None:
        """Note what a page does from now on."""
        page.on("console", self._note)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", self._dismiss)

    def _note(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text}")

    async def _dismiss(self, dialog: Dialog) -> None:
        self.dialogs.append(dialog.message)
        await dialog.dismiss()


@asynccontextmanager
async def open_page(
    path: str, address: str, *, width: int = 1280, height: int = 900, theme: Theme = "light"
) -> AsyncIterator[tuple[Page, Seen]]:
    """A page of a browser of its own that has opened an address, and what it did that it should not."""
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        try:
            size: ViewportSize = {"width": width, "height": height}
            context = await browser.new_context(viewport=size, color_scheme=theme)
            page, seen = await context.new_page(), Seen()
            seen.watch(page)
            await page.goto(address)
            await page.wait_for_selector("#bar .home")
            yield page, seen
        finally:
            await browser.close()
