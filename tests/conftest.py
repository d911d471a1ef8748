"""What all tests share: property tests without deadlines, Ctrl-C, and a browser."""

import asyncio
import inspect
import os
import signal

import pytest
import pytest_asyncio
from hypothesis import settings

from provider.runtime.mlx import mx  # noqa: F401 - before anything that imports mlx

settings.register_profile("default", deadline=None, max_examples=100)
settings.load_profile("default")

# What a shell starts in the background ignores Ctrl-C, and so would the programs under test.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    """Run the tests with a browser in one event loop, the browser's, so that they share it."""
    shared = pytest.mark.asyncio(loop_scope="session")
    for item in items:
        if item.get_closest_marker("browser") and inspect.iscoroutinefunction(item.function):
            item.add_marker(shared, append=False)


@pytest_asyncio.fixture
async def plain_loop():
    """Debug the loop no more: it takes six times as long where there are many callbacks."""
    asyncio.get_running_loop().set_debug(False)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser():
    from playwright.async_api import Error

    from tests.support.browser import chromium

    try:
        async with chromium() as browser:
            asyncio.get_running_loop().set_debug(False)  # slow: Playwright has many callbacks
            yield browser
    except Error:
        if os.environ.get("CI"):
            raise
        pytest.skip("no Chromium: `make browser` gets one")
