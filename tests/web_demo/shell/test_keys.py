"""The page by the keyboard: keys, their list, the palette; and what a screen reader hears."""

import asyncio

import pytest

from gateway.configuration.settings import Settings
from gateway.server.server import Gateway
from provider.scripted import Gate, Say
from tests.support.timeouts import TIMEOUT
from tests.web_demo.conftest import (
    ANSWER,
    LISTEN,
    answered,
    ask,
    scripted_gateway,
    wait_for_text,
)

pytestmark = pytest.mark.browser


async def focused(page, selector):
    return await page.evaluate("(s) => document.activeElement.matches(s)", selector)


async def test_everything_is_done_by_keys_which_are_listed(new_page):
    async with scripted_gateway(Say("one two")) as gateway:
        page = await new_page(gateway.url)
        await page.keyboard.press("?")  # it is typed into the message
        box = page.get_by_label("Message", exact=True)
        assert await box.input_value() == "?"
        await answered(page, "Hi")
        await page.keyboard.press("Escape")
        await page.locator(".scroll").focus()
        await page.keyboard.press("?")
        keys = page.locator("#keys")
        await keys.get_by_text("Answer once more").wait_for()
        listed = await keys.locator("kbd").all_text_contents()
        assert len(set(listed)) == len(listed), "a key is there twice"
        await page.keyboard.press("Escape")

        await page.keyboard.press("r")
        await page.locator(".version", has_text="2/2").wait_for()
        await page.locator(".assistant:not(.streaming)").wait_for()
        await page.locator(".scroll").focus()
        await page.keyboard.press("[")
        await page.locator(".version", has_text="1/2").wait_for()
        await page.keyboard.press("k")
        assert await focused(page, ".assistant")
        await page.keyboard.press("k")
        assert await focused(page, ".asked")
        await page.keyboard.press("e")
        await page.get_by_label("Edit message").fill("Other")
        await page.keyboard.press("Enter")
        await wait_for_text(page, ".user", "Other")
        await page.locator(".assistant:not(.streaming)").wait_for()
        await page.locator(".scroll").focus()
        await page.keyboard.press("s")
        await page.locator("#settings .field").first.wait_for()
        await page.keyboard.press("?")
        await keys.get_by_text("Close the drawer").wait_for()
        await page.keyboard.press("Escape")
        await page.keyboard.press("Escape")
        assert await focused(page, "#settings-button")
        await page.keyboard.press("t")
        assert await page.evaluate("document.documentElement.dataset.theme") == "light"
        await page.keyboard.press("n")
        await page.locator(".card").first.wait_for()
        assert await focused(page, ".ask textarea")
        await page.locator(".scroll").focus()
        await page.keyboard.press("3")
        await page.locator("#room-wall:visible").wait_for()


async def test_the_palette_finds_what_is_meant_and_single_keys_can_be_turned_off(new_page):
    async with scripted_gateway(Say("one two")) as gateway:
        page = await new_page(gateway.url)
        await answered(page, "About foxes")
        await page.keyboard.press("Control+k")
        await page.locator("#palette input:focus").wait_for()
        await page.keyboard.type("foxes")
        await page.locator("#palette [aria-selected=true]", has_text="About foxes").wait_for()
        await page.keyboard.press("Escape")
        await page.keyboard.press("Control+k")
        await page.locator("#palette input:focus").wait_for()
        await page.keyboard.type("list key")
        chosen = page.locator("#palette [aria-selected=true]", has_text="This list of keys")
        await chosen.wait_for()
        at = await page.get_by_role("combobox").get_attribute("aria-activedescendant")
        assert await chosen.get_attribute("id") == at
        await page.keyboard.press("Enter")
        await page.get_by_label("Single keys work while nothing is typed").uncheck()
        await page.keyboard.press("Escape")
        await page.locator(".scroll").focus()
        await page.keyboard.press("?")
        assert not await page.locator("#keys").is_visible()


async def hurry(page, condition):
    """Let time pass for a page until what it has said fits; return that."""
    async with asyncio.timeout(TIMEOUT):
        while not condition(heard := await page.evaluate("() => heard")):
            await page.clock.fast_forward(1600)
            await asyncio.sleep(0.02)
    return heard


async def test_a_gateway_that_is_away_is_spoken_of_once_and_so_is_its_return(new_page):
    async with scripted_gateway(Say("x")) as gateway:
        page = await new_page(gateway.url, alone=True)
        await page.evaluate(LISTEN)
        await page.clock.install()
        port, tries = gateway.port, []
        page.on("websocket", lambda socket: tries.append(socket.url))
        await gateway.close()
        await hurry(page, lambda heard: heard)
        before = len(tries)
        await hurry(page, lambda _: len(tries) > before + 1)
        async with Gateway(gateway.provider, Settings(port=port)):
            heard = await hurry(page, lambda heard: "Connected again." in heard)
        assert "connection lost" in heard[0]
        assert heard[1] == "Connected again."


async def test_a_screen_reader_hears_who_speaks_and_that_an_answer_began_and_ended(new_page):
    async with scripted_gateway(Say("one two")) as gateway:
        page = await new_page(gateway.url)
        await page.evaluate(LISTEN)
        await ask(page, "Hi")
        await wait_for_text(page, ANSWER, "one two")
        await page.wait_for_function("() => heard.some((text) => text.includes('Answered: '))")
        heard = " ".join(await page.evaluate("() => heard"))
        assert heard.index("The model is answering.") < heard.index("Answered: ")
        assert await page.locator(".turns h2").all_text_contents() == ["You", "The model"]
        assert await page.locator(".assistant").get_attribute("aria-busy") == "false"
        await page.locator(".scroll").focus()
        await page.keyboard.press("h")
        await page.wait_for_function("() => heard.at(-1) === 'one two'")


# Keeps the keys that belong to a word that is being composed.
COMPOSED = """() => {
    globalThis.composed = [];
    const keep = (event) => event.keyCode === 229 && composed.push(event);
    addEventListener("keydown", keep, true);
}"""


async def compose(page, *keys):
    """Press keys as Safari tells of them when they end a word: after `compositionend`."""
    session = await page.context.new_cdp_session(page)
    for key in keys:
        of_word = {"key": key, "code": key, "windowsVirtualKeyCode": 229}
        for kind in ("rawKeyDown", "keyUp"):
            await session.send("Input.dispatchKeyEvent", {"type": kind, **of_word})
    await session.detach()


async def test_keys_that_end_a_composed_word_do_nothing_else(new_page):
    gate = asyncio.Event()
    async with scripted_gateway(Say("one "), Gate(gate), Say("two")) as gateway:
        page = await new_page(gateway.url)
        await page.evaluate(COMPOSED)
        await page.get_by_label("Message", exact=True).fill("Hi")
        await compose(page, "Enter")
        await page.keyboard.press("Enter")
        await wait_for_text(page, ANSWER, "one")
        await compose(page, "Escape")
        gate.set()
        await wait_for_text(page, ANSWER, "one two")
        await page.locator(".assistant:not(.streaming)").wait_for()

        await page.get_by_role("button", name="Edit").click()
        await compose(page, "Enter", "Escape")
        assert await page.get_by_label("Edit message").is_visible()
        await page.keyboard.press("Escape")
        await page.locator(".talks a").first.hover()
        await page.get_by_role("button", name="Rename “Hi”").click()
        await compose(page, "Enter", "Escape")
        assert await page.get_by_label("Title").is_visible()
        await page.keyboard.press("Escape")
        await page.keyboard.press("Control+k")
        await page.locator("#palette input:focus").wait_for()
        await compose(page, "ArrowDown", "Enter")
        assert await page.locator("#palette").is_visible()
        await page.keyboard.press("Escape")
        await page.locator("#settings-button").click()
        await page.get_by_role("button", name="Keep these as a preset…").click()
        await compose(page, "Enter", "Escape")
        assert await page.get_by_label("Name of the preset").is_visible()
        await page.get_by_role("link", name="Race").click()
        await page.get_by_label("Prompt for all lanes").click()
        await compose(page, "Enter")
        taken = await page.evaluate("() => composed.map((event) => event.defaultPrevented)")
        assert taken == [False] * 11
        assert len(gateway.provider.requests) == 1


async def test_escape_that_empties_a_search_does_not_stop_an_answer(new_page):
    gate = asyncio.Event()
    async with scripted_gateway(Say("one "), Gate(gate), Say("two")) as gateway:
        page = await new_page(gateway.url)
        await ask(page, "Hi")
        await wait_for_text(page, ANSWER, "one")
        search = page.get_by_label("Search conversations")
        await search.fill("foxes")
        await search.press("Escape")
        assert await search.input_value() == ""
        gate.set()
        await wait_for_text(page, ANSWER, "one two")
