"""Hostile texts as names and in tool cards: they are text, and never markup."""

import json

import pytest

from provider.interface import ModelInfo
from provider.scripted import Call, ScriptedProvider
from tests.support.servers import running
from tests.web_demo.conftest import answered, wait_for_text
from tests.web_demo.hostile import ACTIVE, HOSTILE

pytestmark = pytest.mark.browser
CALLS = ".call .name"


class Named(ScriptedProvider):
    """Its models have hostile names."""

    def models(self):
        return [ModelInfo(text, 8192) for text in HOSTILE]


def conversations():
    """Return a file of conversations with hostile titles; the newest has calls like that too."""
    calls = [
        {"id": text, "type": "function", "function": {"name": text, "arguments": text}}
        for text in HOSTILE
    ]
    results = [{"role": "tool", "tool_call_id": text, "content": text} for text in HOSTILE]
    messages = [
        {"role": "assistant", "content": "", "tool_calls": calls},
        *results,
        {"role": "assistant", "content": "Done."},
    ]
    turn = {"conversation": "0", "made": 0}
    asked = {**turn, "id": "q", "parent": None, "role": "user", "content": "Hi"}
    said = {"role": "assistant", "content": "Done.", "messages": messages, "ended": "stop"}
    texts = {"model": HOSTILE[0], "figures": HOSTILE[1], "reasoning": HOSTILE[2]}
    answer = {**turn, "id": "a", "parent": "q", **said, **texts}
    talks = [
        {"id": str(number), "title": text, "made": 0, "changed": 99 - number, "leaf": None}
        for number, text in enumerate(HOSTILE)
    ]
    talks[0]["leaf"] = "a"
    kind = {"format": "mlx-gateway.conversations", "version": 1}
    return json.dumps({**kind, "conversations": talks, "turns": [asked, answer]})


async def test_names_and_tool_cards_are_text_and_never_markup(new_page, tmp_path):
    assert len(HOSTILE) >= 40
    path = tmp_path / "talks.json"
    path.write_text(conversations())
    calls = [Call(text, {text: text}) for text in HOSTILE]
    provider = Named(script=calls, tokens_per_second=None)
    async with running(provider) as gateway:
        page = await new_page(gateway.url)
        elsewhere = []
        page.on("request", lambda request: elsewhere.append(request.url))
        names = page.locator("#models option")
        await names.nth(len(HOSTILE) - 1).wait_for(state="attached")
        assert await names.evaluate_all("(all) => all.map(({ value }) => value)") == HOSTILE

        turn = await answered(page, "Call them")
        assert await turn.locator(CALLS).all_text_contents() == HOSTILE
        assert [
            json.loads(text) for text in await turn.locator(".call .arguments").all_text_contents()
        ] == [{text: text} for text in HOSTILE]
        await page.locator(".sidebar input[type=file]").set_input_files(path)
        await wait_for_text(page, ".undo", f"Imported {len(HOSTILE)} conversations.")
        titles = page.locator(".talks li a")
        await titles.nth(len(HOSTILE)).wait_for()
        assert sorted(await titles.all_text_contents()) == sorted([*HOSTILE, "Call them"])
        await titles.filter(has_text=HOSTILE[0]).first.click()
        await wait_for_text(page, ".call .returned", HOSTILE[-1])
        assert await page.locator(CALLS).all_text_contents() == HOSTILE
        assert await page.locator(".call .returned").all_text_contents() == HOSTILE
        await page.keyboard.press("Control+k")
        await page.locator("#palette input:focus").wait_for()
        await page.keyboard.type("script")
        await page.locator("#palette .label", has_text="<script").first.wait_for()
        await page.keyboard.press("Escape")
        await page.locator("#settings-button").click()
        await wait_for_text(page, ".model-card .model-name", HOSTILE[0])
        await page.evaluate("() => { location.hash = 'race/' + encodeURIComponent('<b>Hi') ; }")
        await page.locator(".lane select option").nth(len(HOSTILE)).wait_for(state="attached")

        assert await page.evaluate(ACTIVE) == []
        assert await page.title() == "mlx-gateway"
        assert [url for url in elsewhere if not url.startswith((gateway.url, "blob:"))] == []
