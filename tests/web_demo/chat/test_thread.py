"""Long conversations: what the page holds of them, and what a turn more of them takes."""

import asyncio

import pytest

from provider.scripted import Gate, Say
from tests.web_demo.conftest import answered, ask, scripted_gateway

pytestmark = pytest.mark.browser

TURNS = ".turns > li"
MOST = 122  # shown turns: those of a page, with the newest question and its answer
SEED = """async (count) => {
    const { openStore } = await import("/store/database.js");
    const store = await openStore();
    const turns = Array.from({ length: count }, (_, index) => ({
        id: `t${index}`, conversation: "long", parent: index ? `t${index - 1}` : null, made: index,
        role: index % 2 ? "assistant" : "user", content: `said ${index}`, ended: "stop",
    }));
    const leaf = `t${count - 1}`, title = "Long";
    await store.save([{ id: "long", title, named: true, made: 1, changed: 1, leaf }], turns);
    location.hash = "#chat/long";
}"""
# Counts what is encoded, read and kept again: `counted()` has characters, and earlier turns.
COUNT = """() => {
    let [encoded, read, kept] = [0, 0, 0];
    const { parse } = JSON;
    JSON.parse = (text, ...more) => {
        read += text.length;
        return parse(text, ...more);
    };
    const { encode } = TextEncoder.prototype;
    TextEncoder.prototype.encode = function (text) {
        encoded += text.length;
        return encode.call(this, text);
    };
    const { put } = IDBObjectStore.prototype;
    IDBObjectStore.prototype.put = function (value, ...key) {
        if (/^t\\d+$/.test(value.id)) kept += 1;
        return put.call(this, value, ...key);
    };
    globalThis.counted = () => [encoded, read, kept];
}"""


async def opened(new_page, url, count):
    """Return a page that shows a conversation of so many turns."""
    page = await new_page(url)
    await page.evaluate(SEED, count)
    await page.locator(TURNS, has_text=f"said {count - 1}").wait_for()
    return page


async def shown(page):
    return await page.locator(TURNS).count()


async def test_what_a_turn_takes_does_not_grow_with_the_conversation(new_page):
    costs = []
    async with scripted_gateway(Say("There.")) as gateway:
        for count in (10, 1000):
            page = await opened(new_page, gateway.url, count)
            await answered(page, "And?")  # what is there is measured once
            await page.evaluate(COUNT)
            await answered(page, "And then?")
            costs.append(await page.evaluate("() => counted()"))
            assert await shown(page) <= MOST
            sent = gateway.provider.requests[-1].options["messages"]
            assert len(sent) == count + 3, "the model gets all of it"
    (short, _, _), (long, read, kept) = costs
    assert short == long < 1000
    assert read < 10_000, "the frames of the gateway"
    assert kept == 0


async def test_earlier_turns_come_as_a_reader_goes_up_and_what_is_in_sight_stays(new_page):
    async with scripted_gateway(Say("There.")) as gateway:
        page = await opened(new_page, gateway.url, 200)
        assert await shown(page) == 60
        first = page.locator(TURNS).first
        assert "said 140" in await first.text_content()
        await page.locator(TURNS, has_text="said 141").scroll_into_view_if_needed()
        await page.locator(TURNS, has_text="said 139").wait_for(state="attached")
        assert await page.locator(TURNS, has_text="said 141").is_visible()
        box = await page.locator(TURNS, has_text="said 141").bounding_box()
        assert 0 < box["y"] < 800
        await page.wait_for_function(
            """() => {
                document.querySelector(".scroll").scrollTop = 0;
                return document.querySelector(".turns > li").textContent.includes("said 0");
            }"""
        )
        texts = await page.locator(TURNS).evaluate_all(
            "(all) => all.map((one) => one.querySelector('.user, .text').textContent)"
        )
        assert texts == [f"said {index}" for index in range(200)]
        await ask(page, "And then?")
        await page.locator(".assistant:not(.streaming)", has_text="There.").wait_for()
        assert await shown(page) == 60


async def test_the_keys_reach_turns_that_are_not_shown_yet(new_page):
    async with scripted_gateway(Say("There.")) as gateway:
        page = await opened(new_page, gateway.url, 70)
        await page.locator(TURNS).first.evaluate("(turn) => turn.focus()")
        assert await page.evaluate("() => document.activeElement.textContent.includes('said 10')")
        await page.keyboard.press("k")
        assert await page.evaluate("() => document.activeElement.textContent.includes('said 9')")


async def test_the_end_stays_in_sight_while_an_answer_grows_until_a_reader_goes_up(new_page):
    gates = [asyncio.Event(), asyncio.Event()]
    long = Say("word\n\n" * 60)
    async with scripted_gateway(long, Gate(gates[0]), long, Gate(gates[1]), long) as gateway:
        page = await new_page(gateway.url)
        left = "((all) => all.scrollHeight - all.scrollTop - all.clientHeight)"
        left = f"{left}(document.querySelector('.scroll'))"
        words = "document.querySelector('.text').textContent.split('word').length - 1"
        await ask(page, "Hi")
        await page.wait_for_function(f"() => {words} === 60 && {left} < 2")
        gates[0].set()
        await page.wait_for_function(f"() => {words} === 120 && {left} < 2")
        await page.mouse.move(600, 300)
        await page.mouse.wheel(0, -900)
        at = "[globalThis.at, globalThis.at = document.querySelector('.scroll').scrollTop]"
        still = "(([was, is]) => was === is)"  # a wheel may move a page for some frames
        await page.wait_for_function(f"() => {left} > 800 && {still}({at})")
        await page.locator(".latest").wait_for()
        top = await page.evaluate("document.querySelector('.scroll').scrollTop")
        gates[1].set()
        await page.locator(".assistant:not(.streaming)").wait_for()
        assert await page.evaluate("document.querySelector('.scroll').scrollTop") == top
        await page.locator(".latest").click()
        await page.wait_for_function(f"() => {left} < 2")


async def test_only_the_end_of_a_long_answer_is_laid_out_while_it_grows(new_page):
    gate = asyncio.Event()
    async with scripted_gateway(Say("word\n\n" * 300), Gate(gate)) as gateway:
        page = await new_page(gateway.url)
        await ask(page, "Hi")
        first = page.locator(".text .block").first
        await page.locator(".text .block").nth(299).wait_for()
        skipped = "(one) => !one.firstChild.checkVisibility({ contentVisibilityAuto: true })"
        await page.wait_for_function(f"() => ({skipped})(document.querySelector('.text .block'))")
        assert await first.text_content() == "word"
        gate.set()
