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

    def __init__(self, context, empty, devtools):
        self._context, self._empty, self._devtools = context, empty, devtools
        self._origins = set()
        context.on("page", self._watch)

    def _watch(self, page):
        page.on("framenavigated", lambda frame: self._origins.add(origin_of(frame.url)))

    async def new_page(self):
        return await self._context.new_page()

    async def clear(self):
        """Close the pages; a gateway that comes to the same port finds nothing of them.

        Raises AssertionError if a page has set the clock, which all pages of the context then have.
        """
        for page in self._context.pages:
            if page is not self._empty:
                await page.close()
        await self._context.clear_permissions()
        await self._context.unroute_all()
        for origin in self._origins - {None}:
            await self._devtools.send(
                "Storage.clearDataForOrigin", {"origin": origin, "storageTypes": "all"}
            )
        self._origins.clear()
        clock = await self._empty.evaluate("() => String(setTimeout)")
        assert "[native code]" in clock, "a page that sets the clock is to be opened `alone`"


def origin_of(url):
    """Return the origin of an address, None for one that keeps nothing."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}" if parts.netloc else None


@asynccontextmanager
async def profile_of(browser):
    """A profile, with an empty page that keeps its process between tests."""
    context = await browser.new_context(viewport=WINDOW)
    empty = await context.new_page()
    yield Profile(context, empty, await context.new_cdp_session(empty))
    await context.close()
