"""The page's rooms in a real Firefox."""

import asyncio

import pytest

from provider.scripted import Gate, Say, ScriptedProvider
from tests.support.firefox import find_firefox, firefox
from tests.support.servers import running

FIREFOX = find_firefox()
pytestmark = [
    pytest.mark.skipif(FIREFOX is None, reason="no Firefox: `sh tests/support/get_firefox.sh`"),
    pytest.mark.slow("the rooms in another browser"),
]


def having(state, count, of="tile"):
    return f"document.querySelectorAll('.{of}[data-state={state}]').length >= {count}"


def says(selector, text):
    return f"document.querySelector('{selector}')?.textContent.includes('{text}')"


async def test_the_wall_a_race_the_wire_and_a_tape_work_in_firefox():
    gate = asyncio.Event()
    script = [Say("word " * 20), Gate(gate), Say("word " * 130)]
    provider = ScriptedProvider(script=script, tokens_per_second=60)
    async with firefox(FIREFOX) as open_tab, running(provider) as gateway:
        tab = await open_tab()
        await tab.goto(f"{gateway.url}#wall/8/start")
        await tab.wait_for(having("writing", 8))
        await tab.evaluate("document.querySelector('.tile-act').click()")
        await tab.wait_for(having("stopped", 1))
        await tab.evaluate("document.querySelector('.wall-controls .plain').click()")
        await tab.wait_for(says(".wall-news", "7 resumed, 0 lost"))
        gate.set()
        provider.tokens_per_second = 1000
        await tab.wait_for(having("done", 7))

        await tab.evaluate("document.querySelector('#wire-button').click()")
        await tab.wait_for("document.querySelector('.wire-empty') !== null")
        await tab.evaluate("location.hash = 'race/Hello'")
        await tab.wait_for("document.querySelector('.race-go') !== null")
        await tab.evaluate("document.querySelector('.race-go').click()")
        await tab.wait_for(having("done", 3, "lane"))
        await tab.wait_for(says(".wire-row:not([hidden]) .wire-type", "chunk"))
        buttons = "[...document.querySelectorAll('.wire button')]"
        await tab.evaluate(f"{buttons}.find((one) => one.textContent === 'Replay').click()")
        await tab.wait_for(having("done", 3, "tapes .tile"))
        await tab.evaluate("document.querySelector('#engine-button').click()")
        await tab.wait_for(says(".engine-said", "1 connection"))
