"""The end of a conversation stays in sight, and there is a way back to it."""

import asyncio

import pytest

from provider.scripted import Gate, Say
from tests.web_demo.conftest import ask, scripted_gateway, wait_for_text

pytestmark = pytest.mark.browser

LEFT = """() => {
    const { scrollHeight, scrollTop, clientHeight } = document.querySelector(".scroll");
    return scrollHeight - scrollTop - clientHeight;
}"""


async def test_who_has_gone_up_to_read_gets_back_to_the_latest_by_a_button(new_page):
    more = asyncio.Event()
    async with scripted_gateway(Say("word\n" * 150), Gate(more), Say("The end.")) as gateway:
        page = await new_page(gateway.url)
        await ask(page, "Hi")
        words = "document.querySelector('.text')?.textContent.split('word').length === 151"
        await page.wait_for_function(f"() => {words} && ({LEFT})() < 5")
        latest = page.locator(".latest")
        await latest.wait_for(state="hidden")
        await page.evaluate("() => { document.querySelector('.scroll').scrollTop = 0; }")
        await latest.wait_for()
        more.set()
        await wait_for_text(page, ".assistant .text", "The end.")
        assert await page.evaluate(LEFT) > 500, "who reads is not moved"
        await latest.click()
        await page.wait_for_function(f"() => ({LEFT})() < 5")
        await latest.wait_for(state="hidden")
