"""A real Chromium, driven by Playwright."""

import os
import shutil
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from playwright.async_api import async_playwright

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# All pages of a context share a process, which is there while one of them is open.
SHARING = ["--renderer-process-limit=1"]
WINDOW = {"width": 1280, "height": 800}
# The first is Chromium without a window's code, and opens a page in half the time.
NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


def find_chromium():
    """Return a path, or None for Playwright's own."""
    named = os.environ.get("MLX_GATEWAY_CHROMIUM")
    return named or next((path for path in map(shutil.which, NAMES) if path), None)


@asynccontextmanager
async def chromium(*more):
    """Run a Chromium, with `more` arguments; raises Playwright's Error where there is none."""
    arguments = [*ARGUMENTS, *more]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=find_chromium(), args=arguments)
        yield browser
        await browser.close()


class Profile:
    """A context whose pages are those of one test after the other, in one process.

    A page takes a fifth less time there: no process is started, and its code is warm. What
    pages have kept, and what they were allowed, is gone for the next test.
    """

    def __init__(self, context, devtools):
        self._context, self._devtools = context, devtools
        self._origins = set()
        self._pages = []

    async def new_page(self):
        page = await self._context.new_page()
        self._pages.append(page)
        page.on("framenavigated", lambda frame: self._origins.add(origin_of(frame.url)))
        return page

    async def clear(self):
        """Close the pages; a gateway that comes to the same port finds nothing of them."""
        for page in self._pages:
            await page.close()
        self._pages.clear()
        await self._context.clear_permissions()
        for origin in self._origins - {None}:
            await self._devtools.send(
                "Storage.clearDataForOrigin", {"origin": origin, "storageTypes": "all"}
            )
        self._origins.clear()


def origin_of(url):
    """Return the origin of an address, None for one that keeps nothing."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}" if parts.netloc else None


@asynccontextmanager
async def profile_of(browser):
    """A profile, with an empty page that keeps its process between tests."""
    context = await browser.new_context(viewport=WINDOW)
    devtools = await context.new_cdp_session(await context.new_page())
    yield Profile(context, devtools)
    await context.close()
