"""Constraints on answers, and several answers to one message, on the page and the real model."""

import asyncio
import itertools
import json
import re
from contextlib import aclosing

import pytest

from provider.interface import GenerationError
from provider.scripted import Fail, Say
from tests.support.servers import eventually, running
from tests.web_demo.conftest import (
    ANSWER,
    FIGURES,
    answered,
    ask,
    scripted_gateway,
    sent_by,
    settings_of,
    tab_beside,
    wait_for_text,
    wait_until_kept,
)

pytestmark = pytest.mark.browser

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
REGEX = "[A-Z][a-z]{2,8} is [0-9]{1,2} years old"
LARK = 'start: "The answer is " NUMBER\nNUMBER: /[0-9]{1,3}/'


def fits_schema(text):
    value = json.loads(text)
    return set(value) == {"name", "age"} and 0 <= value["age"] <= 99


CONSTRAINTS = {
    "JSON": ("", lambda text: text.startswith("{")),
    "JSON of a schema": (json.dumps(SCHEMA), fits_schema),
    "A pattern (regular expression)": (REGEX, lambda text: re.fullmatch(REGEX, text)),
    "One of a list": ("a red fox\n\n  a grey owl ", {"a red fox", "a grey owl"}.__contains__),
    "A grammar (Lark)": (LARK, lambda text: re.fullmatch(r"The answer is \d{1,3}", text)),
}


async def test_settings_are_chips_are_kept_and_are_taken_back(new_page):
    async with scripted_gateway(Say("x"), max_answer_tokens=2000) as gateway:
        page = await new_page(gateway.url)
        chips = page.locator(".changed .chip")
        assert await chips.count() == 0
        async with settings_of(page) as settings:
            facts = settings.locator(".model-card")
            assert "scripted" in await facts.text_content()
            await facts.get_by_text("reads 8,192 tokens").wait_for()
            await settings.get_by_role("button", name="Creative").click()
            await settings.get_by_label("Longest answer").fill("9000")
            assert "from 1 to 2,000" in await page.locator("#max_tokens-wrong").text_content()
            await settings.get_by_label("Longest answer").fill("900")
            await settings.get_by_label("Repeatable").fill("7")
            await settings.get_by_role("button", name="Keep these as a preset").click()
            await settings.get_by_label("Name of the preset").fill("Mine")
            await page.keyboard.press("Enter")
            mine = settings.get_by_role("button", name="Mine", exact=True)
            assert await mine.get_attribute("aria-pressed") == "true"
            await settings.get_by_role("button", name="Everything as at first").click()
            assert await chips.count() == 0
            await mine.click()
        said = ["Creativity 1.2", "At most 900 tokens", "Seed 7", "No rare words"]
        assert await chips.all_text_contents() == said
        await wait_until_kept(page, '"seed":7')
        await page.reload()
        await page.get_by_role("button", name="Take back: Seed 7").click()
        await page.get_by_role("button", name="At most 900 tokens", exact=True).click()
        await page.locator("#max_tokens:focus").wait_for()
        assert await page.locator("#max_tokens").input_value() == "900"
        await page.keyboard.press("Escape")
        assert not await page.locator("#settings").is_visible()
        await answered(page, "Hi")
    (request,) = gateway.provider.requests
    given = {"temperature": 1.2, "max_tokens": 900, "min_p": 0.05}
    assert {name: request.options.get(name) for name in given} == given
    assert request.options.get("seed") is None


async def keep_as(settings, name):
    await settings.get_by_role("button", name="Keep these as a preset").click()
    await settings.get_by_label("Name of the preset").fill(name)
    await settings.get_by_label("Name of the preset").press("Enter")


async def test_settings_and_presets_of_two_tabs_are_all_kept(new_page):
    async with scripted_gateway(Say("x")) as gateway:
        page = await new_page(gateway.url)
        other = await tab_beside(page)
        own = ".presets .own .preset"
        async with settings_of(page) as settings, settings_of(other) as others:
            await settings.get_by_label("Repeatable").fill("7")
            await keep_as(settings, "First")
            await wait_for_text(other, own, "First")
            await others.get_by_label("Longest answer").fill("900")
            await keep_as(others, "Second")
            await wait_for_text(page, own, "Second")
            await page.get_by_role("button", name="Forget the preset “First”").click()
            await keep_as(others, "Third")
            await wait_for_text(page, own, "Third")
        await wait_until_kept(page, '"seed":7')
        await wait_until_kept(other, '"max_tokens":900')
        for tab in (page, other):
            await tab.reload()
            await wait_for_text(tab, ".changed .chip", "Seed 7")
            said = await tab.locator(".changed .chip").all_text_contents()
            assert said == ["At most 900 tokens", "Seed 7"]
            async with settings_of(tab):
                await wait_for_text(tab, own, "Third")
                assert await tab.locator(own).all_text_contents() == ["Second", "Third"]


async def test_what_another_tab_keeps_leaves_the_focus_on_a_preset(new_page):
    async with scripted_gateway(Say("x")) as gateway:
        page = await new_page(gateway.url)
        other = await tab_beside(page)
        async with settings_of(page) as settings:
            await settings.get_by_role("button", name="Creative").focus()
            await answered(other, "Hi")
            await wait_for_text(page, ".talks a", "Hi")
            await wait_until_kept(other, "ended")
            await page.evaluate("() => new Promise((resolve) => setTimeout(resolve))")
            assert await page.evaluate("() => document.activeElement.textContent") == "Creative"


async def test_the_use_of_the_context_is_shown_where_one_writes(new_page):
    async with scripted_gateway(Say("one two three")) as gateway:
        page = await new_page(gateway.url)
        context = page.locator(".context")
        assert not await context.is_visible()
        await answered(page, "Hi")
        await page.wait_for_function(
            "() => /^\\d+ \\/ 8,192$/.test(document.querySelector('.context').textContent)"
        )
        await page.get_by_label("Message", exact=True).fill("word " * 6000)
        assert (await context.text_content()).startswith("≈ 7,5")
        assert await context.get_attribute("data-full") == "nearly"


async def choose_constraint(page, name, text=""):
    """Choose a constraint; return what is said to be wrong with it."""
    async with settings_of(page) as settings:
        await settings.get_by_label("Form", exact=True).select_option(name)
        if text:
            await page.locator("#form-text").fill(text)
        return await page.locator("#form-wrong").text_content()


async def test_an_answer_satisfies_the_constraint_that_was_chosen(new_page, embedded):
    async with running(embedded) as gateway:
        page = await new_page(gateway.url)
        async with settings_of(page) as settings:
            await settings.get_by_role("button", name="Precise").click()
            await settings.get_by_label("Longest answer").fill("60")
        for name, (text, fits) in CONSTRAINTS.items():
            assert await choose_constraint(page, name, text) == ""
            turn = await answered(page, "Tell me of a keeper")
            assert fits(await turn.locator(".text").text_content()), name
        await choose_constraint(page, "Free text")
        turn = await answered(page, "Count from 3 to 9")
        assert "3, 4, 5" in await turn.locator(".text").text_content()


async def test_a_constraint_that_the_gateway_refuses_is_shown_as_any_error(new_page, embedded):
    async with running(embedded) as gateway:
        page = await new_page(gateway.url)
        await choose_constraint(page, "A pattern (regular expression)", "[a-z")
        await ask(page, "Hi")
        await wait_for_text(page, ".note", "response_format")


NO_CONSTRAINTS = [
    ("JSON of a schema", '{"type":', "not JSON"),
    ("JSON of a schema", "[1]", "a schema is an object"),
    ("JSON of a schema", " ", "give a schema"),
    ("A pattern (regular expression)", " ", "give an expression"),
    ("One of a list", "\n \n", "give a choice"),
    ("A grammar (Lark)", " ", "give a grammar"),
]


async def test_a_text_that_is_no_constraint_is_shown_to_be_wrong_and_nothing_is_sent(new_page):
    async with scripted_gateway(Say("x")) as gateway:
        page = await new_page(gateway.url)
        for name, text, said in NO_CONSTRAINTS:
            assert said in await choose_constraint(page, name, text)
            await ask(page, "Hi")
            await page.locator("#form-text:focus").wait_for()  # the settings open where it is wrong
            assert said in await page.locator("#form-wrong").text_content()
            assert await page.get_by_label("Message", exact=True).input_value() == "Hi"
            await page.keyboard.press("Escape")
        await choose_constraint(page, "JSON")
        await ask(page, "Hi")
        await wait_for_text(page, ANSWER, "x")
    (request,) = gateway.provider.requests
    assert request.options["response_format"] == {"type": "json_object"}


async def test_the_field_of_a_constraint_is_shown_where_it_is_needed_and_keeps_its_text(new_page):
    async with scripted_gateway(Say("x")) as gateway:
        page = await new_page(gateway.url)
        field = page.locator("#form-text")
        async with settings_of(page) as settings:
            constraint = settings.get_by_label("Form", exact=True)
            for name, (text, _) in CONSTRAINTS.items():
                await constraint.select_option(name)
                assert await field.is_visible() == bool(text)
                if text:
                    assert await field.input_value() == ""
                    await field.fill(text)
            for name, (text, _) in CONSTRAINTS.items():
                await constraint.select_option(name)
                assert not text or await field.input_value() == text


async def test_what_else_a_model_takes_is_set_and_what_is_empty_is_not_sent(new_page):
    numbers = {
        "Only the likeliest words": ("top_p", 0.9),
        "Only this many words": ("top_k", 20),
        "No word this much rarer": ("min_p", 0.1),
        "Avoids repeating itself": ("repetition_penalty", 1.1),
        "Avoids words that it has used": ("presence_penalty", 0.5),
        "Avoids words that it uses often": ("frequency_penalty", -0.5),
        "Longest thinking, in tokens": ("max_reasoning_tokens", 0),
    }
    async with scripted_gateway(Say("x")) as gateway:
        page = await new_page(gateway.url)
        await answered(page, "Hi")
        async with settings_of(page) as settings:
            await settings.get_by_text("Fine tuning").click()
            for label, (_, value) in numbers.items():
                await settings.get_by_label(label).fill(str(value))
            await settings.get_by_label("Likelier and rarer tokens").fill('{"10": -5}')
            await settings.get_by_label("Values for the chat template").fill('{"effort": "low"}')
            await settings.get_by_label("Ends before").fill("The end.\n\\n\\n\n")
            await settings.get_by_label("Calculator").check()
            await settings.get_by_label("When it calls").select_option("Always multiply")
        await answered(page, "Hi")
    first, second = (request.options for request in gateway.provider.requests)
    given = dict(numbers.values()) | {
        "logit_bias": {"10": -5},
        "chat_template_kwargs": {"effort": "low"},
        "stop": ["The end.", "\n\n"],
        "tool_choice": {"type": "function", "function": {"name": "multiply"}},
    }
    assert {name: second[name] for name in given} == given
    assert not given.keys() & {name for name, value in first.items() if value is not None}


WRONG_FIELDS = [
    ("#biases", "[1]", "biases are numbers by token id"),
    ("#variables", '"low"', "variables are an object"),
    ("#tools", "{", "not JSON"),
    ("#functions", "{name: 'f'}", 'tool 1 needs a function "run"'),
    ("#functions", "{name:", "SyntaxError"),
]


async def test_nothing_is_sent_while_a_field_is_wrong(new_page):
    async with scripted_gateway(Say("x")) as gateway:
        page = await new_page(gateway.url)
        async with settings_of(page) as settings:
            await settings.get_by_text("Fine tuning").click()
        for field, text, said in WRONG_FIELDS:
            async with settings_of(page):
                await page.locator(field).fill(text)
            await ask(page, "Hi")
            await page.locator(f"{field}:focus").wait_for()
            await wait_for_text(page, f"{field}-wrong", said)
            await page.locator(field).fill("")
            await page.keyboard.press("Escape")
        await answered(page, "Hi")
    assert len(gateway.provider.requests) == 1


# Several answers. --------------------------------------------------------------------------------


async def several(page, count, tokens=400):
    async with settings_of(page) as settings:
        await settings.get_by_label("Answers to choose from").select_option(str(count))
        await settings.get_by_label("Creativity").fill("1.2")
        await settings.get_by_label("Longest answer").fill(str(tokens))


class Halting:
    """A provider that waits at a gate after each 60 responses of a stream, once at each."""

    def __init__(self, provider, gates):
        self._provider, self._gates = provider, iter(gates)

    def __getattr__(self, name):
        return getattr(self._provider, name)

    async def generate_async(self, *arguments, **options):
        return self._halting(await self._provider.generate_async(*arguments, **options))

    async def _halting(self, stream):
        numbers = itertools.count(1)
        async with aclosing(stream):
            async for response in stream:
                if next(numbers) % 60 == 0 and (gate := next(self._gates, None)):
                    await gate.wait()
                yield response


LONGER = """(than) => {
    const now = [...document.querySelectorAll(".several .text")]
        .map((element) => element.textContent.length);
    return now.length === than.length && now.every((one, at) => one > than[at]) && now;
}"""


async def test_several_answers_come_at_once_and_the_one_that_is_kept_goes_on(new_page, embedded):
    gates = [asyncio.Event(), asyncio.Event()]
    async with running(Halting(embedded, gates)) as gateway:
        page = await new_page(gateway.url)
        await several(page, 3, tokens=120)
        async with settings_of(page) as settings:
            await settings.get_by_label("Repeatable").fill("3")
        await ask(page, "Tell me a story about a fox")
        lengths = [0, 0, 0]
        for gate in gates:
            longer = await page.wait_for_function(LONGER, arg=lengths)
            lengths = await longer.json_value()
            gate.set()
        turn = page.locator(".assistant:not(.streaming)").first
        await turn.wait_for()
        texts = await turn.locator(".text").all_text_contents()
        assert len(set(texts)) == 3
        assert await page.evaluate(LONGER, lengths), "they did not come at the same time"
        assert "3 answers" in await turn.locator(".figures").text_content()

        keep = turn.get_by_label("Keep this one")
        assert await keep.nth(0).is_checked()
        await keep.nth(1).check()
        await keep.nth(2).check()
        await several(page, 1, tokens=5)
        await answered(page, "And then?")
        first, second = sent_by(page)
        asked, kept, further = second["messages"]
        assert asked == {"role": "user", "content": "Tell me a story about a fox"}
        assert "".join(kept["content"].split()) == "".join(texts[2].split())  # without line ends
        assert further == {"role": "user", "content": "And then?"}
        assert (
            await turn.get_by_label("Kept", exact=True).nth(0).is_disabled()
        )  # that is settled now
        assert (first["n"], "n" in second) == (3, False)


async def test_several_answers_can_be_stopped_and_the_first_is_kept(new_page, embedded):
    async with running(embedded) as gateway:
        page = await new_page(gateway.url)
        await several(page, 2, tokens=2000)
        await choose_constraint(page, "A pattern (regular expression)", "[a-z ]{9000}")
        await ask(page, "Tell me a story")
        await page.wait_for_function(
            """() => [...document.querySelectorAll(".several .text")]
                .filter((element) => element.textContent.length > 5).length === 2"""
        )
        await page.keyboard.press("Escape")
        await wait_for_text(page, FIGURES, "stopped by you in")
        texts = await page.locator(ANSWER).all_text_contents()
        await choose_constraint(page, "Free text")
        await several(page, 1, tokens=5)
        await answered(page, "Go on")
        assert sent_by(page)[1]["messages"][1]["content"] == texts[0]


@pytest.mark.parametrize("whose", ["page", "user"])
async def test_with_tools_there_is_one_answer_and_it_is_said_why(new_page, whose):
    async with scripted_gateway(Say("x")) as gateway:
        page = await new_page(gateway.url)
        await several(page, 4)
        async with settings_of(page) as settings:
            if whose == "page":
                await settings.get_by_label("Calculator").check()
            else:
                await settings.get_by_label("Calls that you answer by hand").fill('{"name": "f"}')
            assert await settings.get_by_label("Answers to choose from").is_disabled()
            await settings.get_by_text("One with tools").wait_for()
        await ask(page, "Hi")
        await eventually(lambda: gateway.provider.requests)
        assert await page.locator(".column").count() == 1
    assert "n" not in gateway.provider.requests[0].options


async def test_an_error_of_several_answers_leaves_nothing_to_choose(new_page):
    async with scripted_gateway(Fail(GenerationError("out of breath"))) as gateway:
        page = await new_page(gateway.url)
        await several(page, 2)
        await ask(page, "Hi")
        await wait_for_text(page, ".note", "out of breath")
        assert not await page.get_by_label("Keep this one").nth(0).is_visible()


async def test_several_answers_fit_at_any_width(new_page):
    async with scripted_gateway(Say("word " * 30 + "x" * 200)) as gateway:
        page = await new_page(gateway.url)
        await several(page, 4)
        await ask(page, "Hi")
        await wait_for_text(page, ANSWER, "xxx")
        for width in (360, 390, 768, 1280):
            await page.set_viewport_size({"width": width, "height": 800})
            assert await page.evaluate("document.documentElement.scrollWidth") <= width
            for turn in await page.locator(".column").all():
                box = await turn.bounding_box()
                assert box["x"] >= 0
                assert box["x"] + box["width"] <= width
