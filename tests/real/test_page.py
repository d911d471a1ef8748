"""A real chat model on the page, in a real Chromium."""

import pytest

from tests.support.servers import running
from tests.web_demo.conftest import answered, new_page, settings_of

__all__ = ["new_page"]  # a fixture

pytestmark = [pytest.mark.real, pytest.mark.browser, pytest.mark.timeout(300)]


async def test_a_chat_of_two_turns(provider, reference, new_page):
    async with running(provider) as gateway:
        page = await new_page(gateway.url)
        async with settings_of(page) as settings:
            await settings.locator("#temperature").fill("0")
        first = await answered(page, "Name the capital of France.")
        assert "Paris" in await first.inner_text()
        second = await answered(page, "And of Italy?")
        assert "Rome" in await second.inner_text()
