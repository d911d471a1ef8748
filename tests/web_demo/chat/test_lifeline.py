"""The line below an answer, while the gateway is away."""

import asyncio

import pytest

from gateway.configuration.settings import Settings
from gateway.server.server import Gateway
from provider.scripted import Gate, Say, ScriptedProvider
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
