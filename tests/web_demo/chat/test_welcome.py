"""The first visit: what runs, and cards that each set a feature up."""

import gzip

import pytest

from gateway.server.pages import web_root
from provider import MLXProvider
from tests.support.servers import running
from tests.web_demo.conftest import wait_for_text

pytestmark = pytest.mark.browser


MOST = 120_000  # gzipped bytes of what a first visit is made of, without formulas
AHEAD = ("tapes/", "wall/")  # what is fetched once a page has nothing else to do
FETCHED = (
    """() => performance.getEntriesByType("resource").map(({ name }) => new URL(name).pathname)"""
)


async def first_visit(page):
    """Return the files that a page is made of, and their gzipped bytes."""
    names = {path.removeprefix("/") for path in await page.evaluate(FETCHED)} | {"index.html"}
    files = {name: web_root() / name for name in names if not name.startswith(AHEAD)}
    return {
        name: len(gzip.compress(path.read_bytes()))
        for name, path in files.items()
        if path.is_file()
    }


async def play(page, card):
    """Take a card from a new chat."""
    await page.get_by_role("button", name="Try things").click()
    await page.locator(".card", has_text=card).click()
    return page.locator(".assistant")


async def test_each_card_works_with_the_embedded_model(new_page):
    provider = MLXProvider()
    async with running(provider) as gateway:
        page = await new_page(gateway.url)
        await wait_for_text(page, ".runs", "the built-in demo model, 2.3 million parameters")
        visit = await first_visit(page)
        assert {"client.js", "chat/room.js", "chat/chat.css", "markdown/lexer.js"} <= set(visit)
        assert sum(visit.values()) <= MOST, sorted(visit.items(), key=lambda one: -one[1])
        assert await page.locator(".runs code").text_content() == (
            "mlx-gateway serve mlx-community/Qwen3-0.6B-4bit"
        )
        turn = await play(page, "Stop me")
        await wait_for_text(page, ".tip", "Press Stop, or Esc")
        await turn.locator(".text", has_text=" ").first.wait_for()
        await page.keyboard.press("Escape")
        await turn.locator(".figures", has_text="stopped by you in").wait_for()
        assert not await page.locator(".tip").is_visible()

        turn = await play(page, "Think aloud")
        await turn.locator(".reasoning summary", has_text="Thought for").wait_for()

        turn = await play(page, "Call a tool")
        await turn.locator(".call .returned", has_text='{"result": 792}').wait_for()
        await turn.locator(".text", has_text="792").wait_for()
        assert await page.locator(".changed .chip").all_text_contents() == ["Calculator"]

        turn = await play(page, "How sure?")
        await turn.locator(".legend").wait_for()
        assert "chat/odds.js" in await first_visit(page)
        await page.keyboard.press("Escape")

        turn = await play(page, "Pull the plug")
        await turn.locator(".figures .cut", has_text="replayed").wait_for()
        await page.locator(".assistant:not(.streaming)").wait_for()
        assert not await turn.locator(".note").is_visible()
        assert await turn.locator(".figures svg .marks").get_attribute("d")

        await page.get_by_role("button", name="Try things").click()
        await page.locator(".card", has_text="32 at once").click()
        await page.locator("#room-wall:visible").wait_for()
    await provider.aclose()
