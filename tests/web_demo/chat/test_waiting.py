"""What is written while an answer comes: the message that waits, and the one in the field."""

import asyncio

import pytest

from provider.scripted import Gate, Say
from tests.support.servers import eventually
from tests.web_demo.conftest import (
    ANSWER,
    answered,
    ask,
    load_again,
    scripted_gateway,
    settings_of,
    wait_for_text,
    wait_until_gone,
    wait_until_kept,
    watched,
)

pytestmark = pytest.mark.browser

WAITS = ".queued:visible"
CHIPS = ".attached li"
HOLDS = "(text) => document.querySelector('.ask textarea')?.value === text"


def message(page):
    return page.get_by_label("Message", exact=True)


async def attach(page, name):
    file = {"name": name, "mimeType": "text/plain", "buffer": b"foxes"}
    await page.locator(".ask input[type=file]").set_input_files([file])
    await page.locator(CHIPS, has_text=name).wait_for()


async def last_content(gateway):
    return gateway.provider.requests[-1].options["messages"][-1]["content"]


async def test_a_message_that_goes_by_itself_leaves_what_is_being_written(new_page):
    gate = asyncio.Event()
    async with scripted_gateway(Say("One. "), Gate(gate)) as gateway:
        page = await new_page(gateway.url)
        await ask(page, "First")
        await wait_for_text(page, ANSWER, "One.")
        await ask(page, "Second")
        await message(page).fill("A long third")
        await attach(page, "third.txt")
        gate.set()
        await eventually(lambda: len(gateway.provider.requests) == 2)
        await page.locator(".assistant:not(.streaming)").nth(1).wait_for()
        assert await last_content(gateway) == "Second"
        assert await message(page).input_value() == "A long third"
        assert await page.locator(CHIPS).count() == 1
        await load_again(page)
        await page.wait_for_function(HOLDS, arg="A long third")


async def test_files_go_with_the_message_that_waits(new_page):
    gate = asyncio.Event()
    async with scripted_gateway(Say("One. "), Gate(gate)) as gateway:
        page = await new_page(gateway.url)
        await ask(page, "First")
        await wait_for_text(page, ANSWER, "One.")
        await attach(page, "second.txt")
        await ask(page, "Second")
        await wait_for_text(page, WAITS, "Second (second.txt)")
        assert await page.locator(CHIPS).count() == 0
        await page.get_by_role("button", name="Take the waiting message back").click()
        assert await page.locator(CHIPS).count() == 1
        await message(page).press("Enter")
        await page.locator(WAITS).wait_for()
        gate.set()
        await eventually(lambda: len(gateway.provider.requests) == 2)
        texts = [part["text"] for part in await last_content(gateway)]
        assert texts == ["second.txt:\nfoxes\n\n", "Second"]


async def test_an_example_leaves_what_is_being_written(new_page):
    async with scripted_gateway(Say("There.")) as gateway:
        page = await new_page(gateway.url)
        await message(page).fill("My own question")
        await wait_until_kept(page, "My own question")
        await page.get_by_role("button", name="What is this gateway?").click()
        await page.locator(".assistant:not(.streaming)").wait_for()
        assert await message(page).input_value() == "My own question"
        await load_again(page)
        await wait_for_text(page, ANSWER, "There.")
        await page.wait_for_function(HOLDS, arg="My own question")
        await message(page).press("Enter")
        await page.locator(".assistant:not(.streaming)").nth(1).wait_for()
        await page.get_by_role("button", name="New chat").click()
        await page.locator(".card").first.wait_for()
        assert await message(page).input_value() == "", "it was sent"


async def test_a_waiting_message_that_cannot_be_sent_comes_back(new_page):
    gate = asyncio.Event()
    async with scripted_gateway(Say("One. "), Gate(gate)) as gateway:
        page = await new_page(gateway.url)
        await ask(page, "First")
        await wait_for_text(page, ANSWER, "One.")
        await ask(page, "Second")
        async with settings_of(page) as settings:
            await settings.get_by_label("Calls that you answer by hand").fill("{")
            gate.set()
            await page.wait_for_function(HOLDS, arg="Second")
        assert await page.locator(WAITS).count() == 0
        assert len(gateway.provider.requests) == 1


async def test_a_waiting_message_still_waits_after_a_reload(new_page):
    gate = asyncio.Event()
    async with scripted_gateway(Say("One. "), Gate(gate)) as gateway:
        page = await new_page(gateway.url)
        await ask(page, "First")
        await wait_for_text(page, ANSWER, "One.")
        await attach(page, "second.txt")
        await ask(page, "Second")
        await page.locator(WAITS).wait_for()
        await message(page).fill("Third")
        await wait_until_kept(page, "Third")
        await load_again(page)
        await wait_for_text(page, WAITS, "Second (second.txt)")
        await page.wait_for_function(HOLDS, arg="Third")
        gate.set()
        await eventually(lambda: len(gateway.provider.requests) == 2)
        await page.locator(".assistant:not(.streaming)").nth(1).wait_for()
        assert [part["text"] for part in await last_content(gateway)] == [
            "second.txt:\nfoxes\n\n",
            "Second",
        ]
        assert await message(page).input_value() == "Third"
        assert await page.locator(WAITS).count() == 0


async def test_a_message_whose_answer_ended_while_the_page_was_gone_comes_back(new_page):
    gate = asyncio.Event()
    async with scripted_gateway(Say("One. "), Gate(gate)) as gateway:
        page = await new_page(gateway.url)
        await ask(page, "First")
        await wait_for_text(page, ANSWER, "One.")
        await ask(page, "Second")
        await page.locator(WAITS).wait_for()
        await page.get_by_role("button", name="New chat").click()
        await page.locator(".card").first.wait_for()
        assert await message(page).input_value() == ""
        assert await page.locator(WAITS).count() == 0
        await page.locator(".talks a.live").click()
        await wait_for_text(page, WAITS, "Second")
        await page.get_by_role("button", name="New chat").click()
        await page.locator(".card").first.wait_for()
        gate.set()
        await page.locator(".talks .live").wait_for(state="detached")
        await page.locator(".talks a").click()
        await page.wait_for_function(HOLDS, arg="Second")
        assert len(gateway.provider.requests) == 1


async def test_each_tab_keeps_its_own_draft_and_that_of_a_closed_one_comes_back(new_page):
    problems = []
    async with scripted_gateway(Say("One.")) as gateway:
        page = await new_page(gateway.url)
        await answered(page, "First")
        await message(page).fill("of the first tab")
        await wait_until_kept(page, "of the first tab")
        other = watched(await page.context.new_page(), problems)
        await other.goto(page.url)
        await wait_for_text(other, ANSWER, "One.")
        await message(other).fill("of the second tab")
        await wait_until_kept(other, "of the second tab")
        await load_again(page)
        await page.wait_for_function(HOLDS, arg="of the first tab")
        await load_again(other)
        await other.wait_for_function(HOLDS, arg="of the second tab")
        await other.close()
        await message(page).fill("")
        await wait_until_gone(page, "of the first tab")
        await load_again(page)
        await page.wait_for_function(HOLDS, arg="of the second tab")
    assert problems == []
