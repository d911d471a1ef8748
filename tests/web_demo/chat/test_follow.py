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


async def test_the_welcome_is_read_from_its_top_when_there_is_less_room_for_it(new_page):
    async with scripted_gateway(Say("Hi.")) as gateway:
        page = await new_page(gateway.url, viewport={"width": 1280, "height": 1100})
        await page.locator(".card").first.wait_for()
        assert await page.evaluate(LEFT) < 2, "all of it is in sight"
        await page.set_viewport_size({"width": 1280, "height": 420})
        await page.wait_for_function(
            f"() => ({LEFT})() > 100 || document.querySelector('.scroll').scrollTop"
        )
        await page.evaluate(
            "() => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))"
        )
        assert await page.evaluate("() => document.querySelector('.scroll').scrollTop") == 0
