"""The room in which one prompt is answered with several settings at once."""

import asyncio
import itertools
import json

import pytest

from provider.interface import GenerationError, ModelInfo
from provider.scripted import Fail, Gate, Reason, Say, ScriptedProvider
from tests.support.servers import eventually, running
from tests.web_demo.conftest import LISTEN, in_node, scripted_gateway, wait_for_text, wants_node


@pytest.mark.browser
async def test_lanes_answer_one_prompt_each_with_its_own_settings(new_page):
    slow = asyncio.Event()

    def script(request):
        if request.options["temperature"] == 0:
            return [Say("# Fox\n\nThe fox **ran** home.\n\n- <b>1</b>\n- two")]
        return [
            Reason("Hm."),
            Gate(slow),
            Say("# Fox\n\nThe fox **went away**.\n\n- <b>1</b>\n- too"),
        ]

    async with scripted_gateway() as gateway:
        gateway.provider.script = script
        page = await new_page(f"{gateway.url}#race")
        lane = page.locator(".lane")
        assert await lane.count() == 3
        await page.get_by_role("button", name="Remove lane C").click()
        await page.get_by_role("region", name="Lane B", exact=True).get_by_label("Seed").fill("9")
        await page.get_by_label("Prompt for all lanes").fill("A fox")
        await page.keyboard.press("Enter")
        await wait_for_text(page, ".lane[data-state=done] .lane-badges", "first to end")
        await wait_for_text(page, ".lane[data-state=writing] .lane-thought", "Hm.")
        slow.set()
        await wait_for_text(page, ".race-news", "Lane A ended first.")
        assert await page.locator(".lane-text").all_text_contents() == [
            "FoxThe fox ran home.<b>1</b>two",
            "FoxThe fox went away.<b>1</b>too",
        ]
        assert await page.locator(".lane-text :is(h1, h2, h3, h4, strong)").count() == 4
        marked = "() => [...CSS.highlights.get('race-difference')].map(String)"
        assert await page.evaluate(marked) == ["went away", "too"]
        asked = [request.options for request in gateway.provider.requests]
        assert [(one["temperature"], one["seed"]) for one in asked] == [(0, 1), (0.7, 9)]

        await lane.nth(1).get_by_role("button", name="Keep in chat").click()
        await wait_for_text(page, ".turn.user", "A fox")
        await wait_for_text(page, ".assistant .text", "The fox went away.")


@pytest.mark.browser
async def test_setups_and_a_stop_are_one_click(new_page):
    async with scripted_gateway(Say("word "), Gate(asyncio.Event())) as gateway:
        page = await new_page(f"{gateway.url}#race/A%20fox")
        await page.get_by_role("button", name="Seeds").click()
        await page.get_by_role("button", name="+ Lane").click()
        assert await page.locator(".lane").count() == 5
        assert not await page.get_by_role("button", name="Models", exact=True).is_visible()
        await page.get_by_role("button", name="Race", exact=True).click()
        await page.locator(".lane[data-state=writing]").nth(4).wait_for()
        assert gateway.provider.requests[0].last_user_text == "A fox"
        for key, dialog in (("Control+k", "#palette"), ("?", "#keys")):
            await page.locator(".lane-said").first.focus()
            await page.keyboard.press(key)
            await page.locator(f"{dialog}:visible").wait_for()
            await page.keyboard.press("Escape")  # it is the dialog's alone
            await page.locator(dialog).wait_for(state="hidden")
        await page.locator(".lane").first.get_by_role("button", name="Stop").click()
        await page.locator(".lane[data-state=stopped]").wait_for()
        assert await page.locator(".lane[data-state=writing]").count() == 4
        await page.keyboard.press("Escape")
        await page.locator(".lane[data-state=stopped]").nth(4).wait_for()


@pytest.mark.browser
async def test_what_is_removed_comes_back_with_its_answers(new_page):
    async with scripted_gateway(Say("The fox ran.")) as gateway:
        page = await new_page(f"{gateway.url}#race/A%20fox")
        undo = page.locator(".race-undo")
        await page.get_by_role("button", name="Remove lane C").click()
        assert not await undo.is_visible(), "it had no answer"
        await page.get_by_role("button", name="Race", exact=True).click()
        await page.locator(".lane[data-state=done]").nth(1).wait_for()
        await page.get_by_role("button", name="Seeds").click()
        await wait_for_text(page, ".race-undo", "Other lanes.")
        assert await page.locator(".lane").count() == 4
        await page.get_by_role("button", name="Undo").click()
        texts = page.locator(".lane-text")
        assert await texts.all_text_contents() == ["The fox ran."] * 2
        await page.get_by_role("button", name="+ Lane").click()
        await page.get_by_role("button", name="Remove lane A").click()
        await wait_for_text(page, ".race-undo", "Lane A is removed.")
        await page.get_by_role("button", name="Undo").click()
        assert await page.locator(".lane-head > b").all_text_contents() == ["A", "B", "C"]
        assert await texts.all_text_contents() == ["The fox ran.", "The fox ran.", ""]
        await wait_for_text(page, ".race-news", "2 lanes say the same.")


@pytest.mark.browser
async def test_a_race_begun_anew_takes_the_place_of_one_that_runs_and_is_undone(new_page):
    asked = itertools.count()
    ends = asyncio.Event()

    def script(_):
        return [Say("First. " if next(asked) < 2 else "Second. "), Gate(ends)]

    async with scripted_gateway(script=script, max_generations=2) as gateway:
        page = await new_page(f"{gateway.url}#race/A%20fox")
        texts, undo = page.locator(".lane-text"), page.locator(".race-undo")
        await page.get_by_role("button", name="Remove lane B").click()
        await page.get_by_role("region", name="Lane C", exact=True).get_by_label("Seed").fill("9")
        await page.get_by_role("button", name="Race", exact=True).click()
        await page.locator(".lane[data-state=writing]").nth(1).wait_for()
        await page.keyboard.press("Control+k")
        await page.keyboard.type("race race")
        await page.locator("#palette [aria-selected=true]", has_text="Race").wait_for()
        await page.keyboard.press("Enter")
        await wait_for_text(page, ".lane-text", "Second.", 1)
        assert await texts.all_text_contents() == ["Second. "] * 2
        await eventually(lambda: len(gateway.provider.live) == 2)
        assert gateway.provider.requests[3].options["seed"] == 9
        await page.keyboard.press("Escape")
        await page.locator(".lane[data-state=stopped]").nth(1).wait_for()
        await eventually(lambda: not gateway.provider.live)

        await undo.get_by_role("button", name="Undo").click()
        assert await texts.all_text_contents() == ["First. "] * 2
        assert await page.locator(".lane-head > b").all_text_contents() == ["A", "C"]
        await undo.get_by_role("button", name="Redo").click()
        assert await texts.all_text_contents() == ["Second. "] * 2
        assert await undo.get_by_role("button", name="Redo").count() == 0
        await undo.get_by_role("button", name="Undo").click()
        ends.set()
        await page.get_by_role("button", name="Race", exact=True).click()
        await page.locator(".lane[data-state=done]").nth(1).wait_for()
        await wait_for_text(page, ".race-undo", "Raced again.")


@pytest.mark.browser
async def test_each_of_several_lanes_that_were_removed_comes_back(new_page):
    async with scripted_gateway(Say("The fox ran.")) as gateway:
        page = await new_page(f"{gateway.url}#race/A%20fox")
        names, undo = page.locator(".lane-head > b"), page.get_by_role("button", name="Undo")
        await page.get_by_role("button", name="Seeds").click()
        await page.get_by_role("button", name="Race", exact=True).click()
        await page.locator(".lane[data-state=done]").nth(3).wait_for()
        for name in "BC":
            await page.get_by_role("button", name=f"Remove lane {name}").click()
        await wait_for_text(page, ".race-undo", "Lane C is removed.")
        await undo.click()
        assert await names.all_text_contents() == ["A", "C", "D"]
        await wait_for_text(page, ".race-undo", "Lane B is removed.")
        await undo.click()
        assert await names.all_text_contents() == ["A", "B", "C", "D"]
        assert await page.locator(".lane-text").all_text_contents() == ["The fox ran."] * 4
        assert not await page.locator(".race-undo").is_visible()


# How many lanes stand in each row, and the heads that have no room.
LAID_OUT = """() => {
    const tops = [...document.querySelectorAll(".lane")].map(
        (lane) => lane.getBoundingClientRect().top);
    const heads = [...document.querySelectorAll(".lane-head")];
    return [
        [...new Set(tops)].map((top) => tops.filter((one) => one === top).length),
        heads.filter((head) => head.scrollWidth > head.clientWidth).map((head) => head.textContent),
    ];
}"""


@pytest.mark.browser
async def test_a_race_has_two_lanes_at_least_and_eight_at_most(new_page):
    async with scripted_gateway(Say("The fox ran.")) as gateway:
        page = await new_page(f"{gateway.url}#race/A%20fox")
        removes = page.get_by_role("button", name="Remove lane")
        names = page.locator(".lane-head > b")
        await page.get_by_role("button", name="Remove lane B").focus()
        await page.keyboard.press("Enter")
        assert await names.all_text_contents() == ["A", "C"]
        await page.wait_for_function("() => document.querySelectorAll('.lane-head :disabled')[1]")
        add = page.get_by_role("button", name="+ Lane")
        assert await add.evaluate("(one) => one === document.activeElement")
        for _ in range(6):
            await page.keyboard.press("Enter")
        assert await names.all_text_contents() == list("ABCDEFGH")
        await page.locator(".race-tools .quiet:disabled", has_text="+ Lane").wait_for()
        assert await removes.nth(7).is_enabled()
        await page.keyboard.press("+")
        assert await names.count() == 8
        await page.get_by_role("button", name="Race", exact=True).click()
        await wait_for_text(page, ".race-news", "All lanes say the same.")
        assert await page.locator(".lane-text").all_text_contents() == ["The fox ran."] * 8
        badges = await page.locator(".badge").all_text_contents()
        assert sorted(badges) == ["first to end", "first token"]
        assert len(gateway.provider.requests) == 8
        assert await page.evaluate(LAID_OUT) == [[4, 4], []]
        await page.get_by_role("button", name="Remove lane D").focus()
        await page.keyboard.press("Enter")
        await page.wait_for_function("() => document.activeElement.ariaLabel === 'Remove lane E'")
        await add.and_(page.locator(":enabled")).wait_for()


class Two(ScriptedProvider):
    """It has two models."""

    def models(self):
        return [ModelInfo("one", 8192), ModelInfo("two", 8192)]


@pytest.mark.browser
async def test_each_lane_has_its_model_and_says_why_it_failed(new_page):
    script = [Say("So far"), Fail(GenerationError("the model is out of breath"))]
    provider = Two(script=script, tokens_per_second=None)
    async with running(provider) as gateway:
        page = await new_page(f"{gateway.url}#race/A%20fox")
        await page.evaluate(LISTEN)
        await page.get_by_role("button", name="Models", exact=True).click()
        lane = page.get_by_role("region", name="Lane B", exact=True)
        await lane.get_by_text("More").click()
        await lane.get_by_label("Answer as").select_option("json_object")
        await lane.get_by_label("System prompt").fill("Be brief.")
        await page.get_by_role("button", name="Race", exact=True).click()
        await page.locator(".lane[data-state=failed]").nth(1).wait_for()
        await wait_for_text(page, ".lane-figures", "model_error: the model is out of breath", 1)
        assert await page.locator(".race-news").text_content() == "", "they are not compared"
        await page.wait_for_function("() => heard.includes('2 lanes are answering.')")
        asked = {request.options["model"]: request for request in provider.requests}
        first, second = asked["one"], asked["two"]
        assert (first.options.get("response_format"), first.system_prompt) == (None, None)
        assert second.options["response_format"] == {"type": "json_object"}
        assert second.system_prompt == "Be brief."


@wants_node
async def test_texts_differ_by_words():
    pairs = [
        ("The fox ran home.", "The fox went home."),
        ("a b c d e", "a c e"),
        ("same", "same"),
        ("", "words"),
        ("all new words", ""),
        ("été, 3.5 km", "été 3.5 km"),
        ("x " * 3000, "y " * 3000),
    ]
    said = await in_node(
        "race/differences.js",
        f"""
        const pairs = {json.dumps(pairs)};
        const words = ([text, other]) =>
            m.onlyIn(text, other).map(({{from, to}}) => text.slice(from, to));
        console.log(JSON.stringify(pairs.map(words)));
        """,
    )
    assert said[:6] == [["ran"], ["b", "d"], [], [], ["all new words"], [","]]
    assert len(said[6]) == 1
