"""The page's chat in a real Firefox."""

import asyncio

import pytest

from provider.scripted import Gate, Say, ScriptedProvider
from tests.support.firefox import ENTER, find_firefox, firefox
from tests.support.servers import eventually, running
from tests.web_demo.conftest import KEPT

FIREFOX = find_firefox()
pytestmark = [
    pytest.mark.skipif(FIREFOX is None, reason="no Firefox: `sh tests/support/get_firefox.sh`"),
    pytest.mark.slow("the chat in another browser"),
]

LAST = "[...document.querySelectorAll('.assistant')].at(-1)"
ENDED = "document.querySelector('.assistant') && !document.querySelector('.streaming')"
MESSAGE = "[aria-label=Message]"


class Chat:
    """The page, by what a visitor does and sees."""

    def __init__(self, tab):
        self.tab = tab

    async def ask(self, text, field=MESSAGE):
        await self.tab.wait_for(f"document.querySelector('{field}') !== null")
        await self.tab.evaluate(f"document.querySelector('{field}').select()")
        await self.tab.type(text + ENTER)

    async def says(self, text):
        await self.tab.wait_for(f"{LAST}?.querySelector('.text').textContent === '{text}'")

    async def ends(self):
        await self.tab.wait_for(ENDED)

    async def load_again(self):
        """Load the page again, once the browser keeps what the page has told it to."""
        await self.tab.evaluate(f"({KEPT})()")
        await self.tab.reload()

    async def press(self, name):
        """Press the last button with a name."""
        named = f"'{name}' === (one.ariaLabel ?? one.textContent)"
        buttons = f"[...document.querySelectorAll('button')].filter((one) => {named})"
        await self.tab.wait_for(f"{buttons}.length > 0")
        await self.tab.evaluate(f"{buttons}.at(-1).click()")


async def test_a_chat_is_stopped_gone_on_with_asked_again_edited_and_survives_reloads_in_firefox():
    gate, never = asyncio.Event(), asyncio.Event()
    count = iter(range(1, 10))

    def script(request):
        match request.last_user_text:
            case "endless":
                return [Say("On and on"), Gate(never)]
            case "long":
                return [Say("Before. "), Gate(gate), Say("After.")]
            case text:
                return [Say(f"answer {next(count)} to {text}")]

    provider = ScriptedProvider(script=script, tokens_per_second=None)
    async with firefox(FIREFOX) as open_tab, running(provider) as gateway:
        tab = await open_tab()
        await tab.goto(gateway.url)
        chat = Chat(tab)
        await tab.wait_for("document.querySelector('#state').dataset.state === 'open'")
        await chat.ask("endless")
        await chat.says("On and on")
        await tab.evaluate("document.querySelector('.stop').click()")
        await tab.wait_for(f"{LAST}.querySelector('.figures').textContent.includes('stopped by')")
        await eventually(lambda: not provider.live)

        await chat.ask("first")
        await chat.says("answer 1 to first")
        await chat.ends()
        await chat.press("Regenerate")
        await chat.says("answer 2 to first")
        await chat.ends()
        await chat.press("Earlier version")
        await chat.says("answer 1 to first")
        await chat.press("Edit")
        await chat.ask("other", '[aria-label="Edit message"]')
        await chat.says("answer 3 to other")
        await chat.ends()
        asked = [one["content"] for one in provider.requests[-1].options["messages"]]
        assert asked == ["endless", "On and on", "other"]

        await chat.ask("long")
        await chat.says("Before. ")
        await chat.load_again()
        await chat.says("Before. ")
        gate.set()
        await chat.says("Before. After.")
        await chat.ends()
        assert len(provider.requests) == 5
        await chat.load_again()
        await chat.says("Before. After.")
        await chat.press("Share")
        await chat.press("Play")
        await tab.wait_for(
            "document.querySelector('.tapes .tile[data-state=done] .tile-text')"
            "?.textContent === 'Before. After.'"
        )
