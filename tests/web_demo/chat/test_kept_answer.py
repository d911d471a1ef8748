"""The chosen one of several answers is what the conversation has, once it is chosen."""

import asyncio

import pytest

from provider.interface import ChoiceResponse
from provider.scripted import Gate, Say, ScriptedProvider
from tests.support.servers import eventually, running
from tests.web_demo.conftest import ANSWER, answered, ask, load_again, settings_of, wait_for_text

pytestmark = pytest.mark.browser


class Several(ScriptedProvider):
    """Writes four answers at once, which have the numbers 0 to 3."""

    async def _events(self, request, script, calls):
        async for response in super()._events(request, script, calls):
            if not response.content or request.options.get("n", 1) == 1:
                yield response
                continue
            for choice in range(4):
                yield ChoiceResponse(content=f"{response.content}{choice} ", choice=choice)


async def open_page(new_page, gateway):
    page = await new_page(gateway.url)
    async with settings_of(page) as settings:
        await settings.get_by_label("Answers to choose from").select_option("4")
    return page


async def test_the_chosen_answer_is_kept_copied_and_given_away(new_page):
    provider = Several(script=[Say("This is ")], tokens_per_second=None)
    async with running(provider) as gateway:
        page = await open_page(new_page, gateway)
        await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        turn = await answered(page, "Which?")
        await turn.get_by_label("Keep this one").nth(2).check()
        await turn.get_by_role("button", name="Copy").click()
        await turn.get_by_role("button", name="Copied").wait_for()
        copied = await page.evaluate("() => navigator.clipboard.readText()")
        assert copied == "This 2 is 2 "
        await load_again(page)
        await wait_for_text(page, ANSWER, "This 2 is 2 ")
        assert await page.locator(ANSWER).count() == 1


async def test_the_chosen_answer_is_what_the_model_goes_on_with(new_page):
    gate = asyncio.Event()

    def script(request):
        goes_on = request.options.get("continue_final_message")
        return [Say("the end.")] if goes_on else [Say("This is "), Gate(gate)]

    async with running(Several(script=script, tokens_per_second=None)) as gateway:
        page = await open_page(new_page, gateway)
        await ask(page, "Which?")
        await wait_for_text(page, ANSWER, "is 3")
        await page.keyboard.press("Escape")
        await page.get_by_role("button", name="Continue").wait_for()
        await page.get_by_label("Keep this one").nth(2).check()
        await page.get_by_role("button", name="Continue").click()
        await wait_for_text(page, ANSWER, "This 2 is 2 the end.")
        await eventually(lambda: len(gateway.provider.requests) == 2)
        messages = gateway.provider.requests[1].options["messages"]
        assert messages[-1]["content"] == "This 2 is 2 "
        await page.get_by_role("button", name="Earlier version").click()
        await wait_for_text(page, ANSWER, "This 2 is 2 ")
