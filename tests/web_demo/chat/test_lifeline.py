"""The line below an answer, while the gateway is away."""

import asyncio
from dataclasses import replace

import pytest

from gateway.configuration.settings import Settings
from gateway.server.server import Gateway
from provider.interface import GenerationStarted
from provider.scripted import Gate, Prefill, Queue, Say, ScriptedProvider
from tests.support.servers import running
from tests.web_demo.conftest import ANSWER, FIGURES, answered, ask, wait_for_text

pytestmark = pytest.mark.browser


async def test_what_is_sent_while_the_gateway_is_away_says_what_it_waits_for(new_page):
    provider = ScriptedProvider(script=[Say("Here.")], tokens_per_second=None)
    async with running(provider) as gateway:
        page = await new_page(gateway.url)
        await answered(page, "Before")
        port = gateway.port
    await page.locator('#state:not([data-state="open"])').wait_for()
    await ask(page, "Hello?")
    await wait_for_text(page, FIGURES, "waiting for the gateway", which=-1)
    async with Gateway(provider, Settings(port=port)):
        await wait_for_text(page, f"{FIGURES} .first", "first token", which=1)
        figures = await page.locator(FIGURES).last.text_content()
    assert figures.startswith("waited ")
    assert " for the gateway" in figures


async def test_an_answer_that_was_cut_shows_it_at_once_and_no_caret_that_goes_on(new_page):
    provider = ScriptedProvider(script=[Say("Half of it"), Gate(asyncio.Event())])
    async with running(provider) as gateway:
        page = await new_page(gateway.url)
        await ask(page, "Hi")
        await wait_for_text(page, ANSWER, "Half of it")
        for connection in list(gateway._connections):
            connection._socket.transport.abort()
        await gateway.close()
    await wait_for_text(page, FIGURES, "connection lost")
    moving = "() => getComputedStyle(document.querySelector('.streaming .text p'), '::after')"
    assert await page.evaluate(f"{moving}.animationName") == "none"


class Busy(ScriptedProvider):
    """Has read most of each prompt before, and lets each answer wait for others."""

    async def _events(self, request, script, calls):
        async for response in super()._events(request, script, calls):
            if isinstance(response.raw_response, GenerationStarted):
                response.raw_response = replace(
                    response.raw_response, prompt_tokens=612, cached_tokens=540
                )
            yield response

    def _last(self, *arguments):
        response = super()._last(*arguments)
        response.usage |= {"prompt_tokens": 612, "cached_tokens": 540}
        response.raw_response = replace(response.raw_response, queue_ms=120.0)
        return response


async def test_the_queue_and_the_part_of_the_prompt_that_was_cached_are_shown(new_page):
    third, first, read, end = (asyncio.Event() for _ in range(4))
    script = [Queue(3), Gate(third), Queue(1), Gate(first), Prefill(576, 612), Gate(read)]
    provider = Busy(script=[*script, Say("Here it is."), Gate(end)], tokens_per_second=None)
    async with running(provider) as gateway:
        page = await new_page(gateway.url)
        await ask(page, "Hi")
        await wait_for_text(page, FIGURES, "number 3 in the queue")
        third.set()
        await wait_for_text(page, FIGURES, "number 1 in the queue")
        assert not await page.locator(f"{FIGURES} .meter").is_visible(), "nothing is read yet"
        first.set()
        await wait_for_text(page, FIGURES, "reading the prompt: 576 of 612 tokens")
        bar = page.get_by_role("img", name="612 tokens of the prompt, 540 of them cached")
        shares = await bar.evaluate("({ children }) => [...children].map((one) => one.offsetWidth)")
        whole = await bar.evaluate("(one) => one.clientWidth")
        assert shares == pytest.approx([whole * 540 / 612, whole * 576 / 612], abs=1)
        read.set()
        await wait_for_text(page, f"{FIGURES} .prompt", "read 612 (540 cached)")
        end.set()
        await wait_for_text(page, f"{FIGURES} .wait", "120 ms in the queue")
        await wait_for_text(page, f"{FIGURES} .prompt", "read 612 (540 cached)")
