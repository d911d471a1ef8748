"""A conversation that is open in two tabs while an answer of it is written in one of them."""

import asyncio

import pytest

from provider.scripted import Gate, Say, ScriptedProvider
from tests.support.servers import running
from tests.web_demo.chat.test_talks import tool_script
from tests.web_demo.conftest import (
    ANSWER,
    SENT,
    answered,
    ask,
    load_again,
    scripted_gateway,
    settings_of,
    wait_for_text,
    wait_until_kept,
    watched,
)

pytestmark = pytest.mark.browser

NOTE = ".assistant .note"
ELSEWHERE = "written in another tab"
ENDED = ".assistant:not(.streaming)"
# What a page of plain http has, which knows of no other tab.
WITHOUT_A_LIMIT = "AbortSignal.timeout = () => new AbortController().signal"
WAITS_FOR_A_TURN = """async () => {
    const { pending } = await navigator.locks.query();
    return pending.some(({ name }) => name.startsWith("turn "));
}"""
WITHOUT_LOCKS = "Object.defineProperty(navigator, 'locks', { value: undefined })"


async def second_tab(page, problems, script=None):
    """Open what a page shows in another tab of its browser."""
    other = watched(await page.context.new_page(), problems)
    if script:
        await other.add_init_script(script)
    await other.goto(page.url)
    return other


async def test_a_second_tab_leaves_the_answer_to_the_first_and_shows_its_end(new_page):
    gate, problems = asyncio.Event(), []
    async with scripted_gateway(Say("Before. "), Gate(gate), Say("After.")) as gateway:
        page = await new_page(gateway.url)
        await ask(page, "Tell")
        await wait_for_text(page, ANSWER, "Before.")
        await wait_until_kept(page, '"ticket":{')
        other = await second_tab(page, problems)
        await wait_for_text(other, NOTE, ELSEWHERE)
        gate.set()
        for tab in (page, other):
            await wait_for_text(tab, ANSWER, "Before. After.")
            await tab.locator(ENDED).wait_for()
            assert not await tab.locator(NOTE).is_visible()
        assert len(gateway.provider.requests) == 1
    assert problems == []


async def test_a_second_tab_shows_an_answer_while_the_first_one_writes_it(new_page):
    gates, problems = [asyncio.Event(), asyncio.Event()], []
    script = [Say("Before. "), Gate(gates[0]), Say("Then. "), Gate(gates[1]), Say("After.")]
    async with scripted_gateway(script=script) as gateway:
        page = await new_page(gateway.url)
        await ask(page, "Tell")
        await wait_for_text(page, ANSWER, "Before.")
        await wait_until_kept(page, '"ticket":{')
        other = await second_tab(page, problems)
        await wait_for_text(other, NOTE, ELSEWHERE)
        gates[0].set()
        for tab in (page, other):
            await wait_for_text(tab, ANSWER, "Before. Then.")
            await tab.locator(".assistant.streaming").wait_for()
        assert await other.locator(NOTE).is_visible()
        gates[1].set()
        await wait_for_text(page, ANSWER, "Before. Then. After.")
        await wait_for_text(other, ANSWER, "Before. Then. After.")
        await other.locator(ENDED).wait_for()
        assert not await other.locator(NOTE).is_visible()
        assert len(gateway.provider.requests) == 1
    assert problems == []


async def test_a_second_tab_shows_what_is_said_further_in_the_first(new_page):
    gates, problems = [asyncio.Event(), asyncio.Event()], []
    scripts = iter([[Say("One.")], [Say("Two, "), Gate(gates[0]), Say("and "), Gate(gates[1])]])
    async with scripted_gateway(script=lambda request: next(scripts)) as gateway:
        page = await new_page(gateway.url)
        await answered(page, "First")
        other = await second_tab(page, problems)
        await wait_for_text(other, ANSWER, "One.")
        await other.get_by_label("Message", exact=True).fill("of the second tab")
        first = await other.locator(".assistant").element_handle()
        await ask(page, "Second")
        await wait_for_text(other, ".user", "Second")
        await wait_for_text(other, NOTE, ELSEWHERE)
        gates[0].set()
        await wait_for_text(other, ANSWER, "Two, and")
        await other.locator(".assistant.streaming").wait_for()
        gates[1].set()
        await other.locator(ENDED).nth(1).wait_for()
        assert await first.evaluate("(one) => one.isConnected"), "what was there stays as it is"
        assert await other.get_by_label("Message", exact=True).input_value() == "of the second tab"
        assert len(gateway.provider.requests) == 2
    assert problems == []


async def test_a_second_tab_leaves_an_answer_that_ends_while_it_asks_whose_it_is(new_page):
    gate, problems = asyncio.Event(), []
    async with scripted_gateway(Say("Before. "), Gate(gate), Say("After.")) as gateway:
        page = await new_page(gateway.url)
        await ask(page, "Tell")
        await wait_for_text(page, ANSWER, "Before.")
        await wait_until_kept(page, '"ticket":{')
        other = await second_tab(page, problems, WITHOUT_A_LIMIT)
        await other.wait_for_function(WAITS_FOR_A_TURN)
        gate.set()
        for tab in (page, other):
            await wait_for_text(tab, ANSWER, "Before. After.")
            await tab.locator(ENDED).wait_for()
        assert not [frame for frame in SENT[other] if '"type":"resume"' in frame]
        assert len(gateway.provider.requests) == 1
    assert problems == []


async def test_a_second_tab_goes_on_with_the_answer_when_the_first_is_closed(new_page):
    gate, problems = asyncio.Event(), []
    async with scripted_gateway(Say("Before. "), Gate(gate), Say("After.")) as gateway:
        page = await new_page(gateway.url)
        await ask(page, "Tell")
        await wait_for_text(page, ANSWER, "Before.")
        await wait_until_kept(page, '"ticket":{')
        other = await second_tab(page, problems)
        await wait_for_text(other, NOTE, ELSEWHERE)
        await page.close()
        await wait_for_text(other, ANSWER, "Before.")
        gate.set()
        await wait_for_text(other, ANSWER, "Before. After.")
        await other.locator(ENDED).wait_for()
        assert len(gateway.provider.requests) == 1
    assert problems == []


async def test_two_tabs_run_the_functions_of_an_answer_once(new_page):
    gates, problems = [asyncio.Event(), asyncio.Event()], []
    provider = ScriptedProvider(script=tool_script(gates), tokens_per_second=None)
    async with running(provider) as gateway:
        page = await new_page(gateway.url)
        async with settings_of(page) as settings:
            await settings.get_by_label("Calculator").check()
        await ask(page, "What is 734 plus 58?")
        await wait_for_text(page, ANSWER, "Let me see.")
        other = await second_tab(page, problems)
        await wait_for_text(other, NOTE, ELSEWHERE)
        for gate in gates:
            gate.set()
        for tab in (page, other):
            await wait_for_text(tab, ANSWER, 'It is {"result": 792}')
        assert len(gateway.provider.requests) == 2
    assert problems == []


async def test_an_answer_that_another_page_takes_over_has_not_ended(new_page):
    gate, problems = asyncio.Event(), []
    async with scripted_gateway(Say("Before. "), Gate(gate), Say("After.")) as gateway:
        page = await new_page(gateway.url)
        await ask(page, "Tell")
        await wait_for_text(page, ANSWER, "Before.")
        await wait_until_kept(page, '"ticket":{')
        other = await second_tab(page, problems, WITHOUT_LOCKS)
        await wait_for_text(other, ANSWER, "Before.")
        await wait_for_text(page, NOTE, ELSEWHERE)
        await load_again(other)
        await wait_for_text(other, ANSWER, "Before.")
        gate.set()
        await wait_for_text(other, ANSWER, "Before. After.")
        await other.locator(ENDED).wait_for()
        assert len(gateway.provider.requests) == 1
    assert problems == []
