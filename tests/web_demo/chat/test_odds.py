"""How sure the model was of each piece of a text, on the demo page and the real model."""

import asyncio
import math

import pytest

from provider.scripted import Gate, Reason, Say
from tests.support.servers import running
from tests.web_demo.conftest import (
    ANSWER,
    answered,
    ask,
    load_again,
    scripted_gateway,
    settings_of,
    wait_for_text,
)

pytestmark = pytest.mark.browser

QUESTION = "Tell me a story about a fox named Zorvan"
MARKS = [0.9, 0.7, 0.4, 0.15]


async def show_sureness(page, temperature="1.2"):
    async with settings_of(page) as settings:
        await settings.get_by_label("Show how sure it was").check()
        await settings.get_by_label("Creativity").fill(temperature)
        await settings.get_by_label("Repeatable").fill("3")
        await settings.get_by_label("Longest answer").fill("80")


async def drawn_by(provider, **options):
    """Return the answer that the page will get, and its tokens with their log-probabilities."""
    whole = await provider.generate_async(
        "",
        messages=[{"role": "user", "content": QUESTION}],
        logprobs=True,
        top_logprobs=3,
        **options,
    )
    return whole.content, list(whole.raw_response.logprobs.tokens)


# The texts of the marked ranges, in the order of the page, and the middle of each.
MARKED = """() => [1, 2, 3, 4].flatMap((mark) =>
    [...(CSS.highlights.get(`odds-${mark}`) ?? [])].map((one) => {
        const range = new Range();
        range.setStart(one.startContainer, one.startOffset);
        range.setEnd(one.endContainer, one.endOffset);
        const { left, top, width, height } = range.getClientRects()[0] ?? {};
        return { mark, text: range.toString(), at: [left + width / 2, top + height / 2], range };
    }))
    .sort((one, other) => one.range.compareBoundaryPoints(Range.START_TO_START, other.range))
    .map(({ mark, text, at }) => [text, mark, at])"""


async def test_each_piece_is_marked_by_its_probability(new_page, embedded):
    async with running(embedded) as gateway:
        text, tokens = await drawn_by(embedded, temperature=1.2, seed=3, max_tokens=80)
        page = await new_page(gateway.url)
        await show_sureness(page)
        turn = await answered(page, QUESTION)
        shown = await turn.locator(".text").text_content()
        assert "".join(shown.split()) == "".join(text.split())
        marked = [(piece, mark) for piece, mark, _ in await page.evaluate(MARKED)]
        chances = [(one["token"].strip(), math.exp(one["logprob"])) for one in tokens]
        expected = [(piece, sum(p < least for least in MARKS)) for piece, p in chances]
        assert marked == [(piece, mark) for piece, mark in expected if mark]
        assert len({mark for _, mark in expected}) > 3, "a poor test: it was as sure of all of it"
        assert await turn.locator(".legend").is_visible()


async def odds(page):
    """Return the rows that are shown: what, how likely, whether it was drawn."""
    return await page.locator(".odds p").evaluate_all(
        """(rows) => rows.map((row) => [row.querySelector(".name").textContent,
            row.querySelector(".percent").textContent, row.classList.contains("drawn")])"""
    )


async def test_the_odds_are_shown_to_a_mouse_to_the_keyboard_and_to_a_finger(new_page, embedded):
    async with running(embedded) as gateway:
        page = await new_page(gateway.url, has_touch=True)
        await show_sureness(page)
        turn = await answered(page, QUESTION)
        pieces = await page.evaluate(MARKED)

        text, _, at = next(piece for piece in pieces if piece[1] == 4)
        await page.mouse.move(*at)
        rows = await odds(page)
        assert len(rows) in {3, 4}
        assert [name.strip("␣") for name, _, drawn in rows if drawn] == [text]
        assert all("%" in percent for _, percent, _ in rows)
        await page.locator(".bar h1").hover()
        assert await odds(page) == []

        await page.locator(".scroll").focus()
        for _ in range(3):  # the buttons of the question, and the whole text is one stop
            await page.keyboard.press("Tab")
        first = await odds(page)
        await page.keyboard.press("ArrowRight")
        second = await odds(page)
        assert first != second
        drawn = next((name, percent) for name, percent, drawn in second if drawn)
        await wait_for_text(page, "#spoken", f"{drawn[0]}, {drawn[1]}; else")
        await page.keyboard.press("Home")
        assert await odds(page) == first
        await page.keyboard.press("Escape")
        assert await odds(page) == []
        await page.keyboard.press("Tab")
        copy = turn.get_by_role("button", name="Copy")
        assert await copy.evaluate("(one) => one === document.activeElement")

        await page.touchscreen.tap(*at)
        assert await odds(page) == rows


async def test_markdown_stays_markdown_and_code_is_marked_too(new_page):
    text = "Some **bold words**, a [link](https://a.example/x) &amp; `code`:\n\n"
    text += "```js\nlet one = 2;\n```\n"
    async with scripted_gateway(Say(text, top_logprobs=2)) as gateway:
        page = await new_page(gateway.url)
        await show_sureness(page)
        turn = await answered(page, "Hi")
        assert await turn.locator(".text strong").text_content() == "bold words"
        assert await turn.locator(".text a").text_content() == "link"
        marked = [piece for piece, _, _ in await page.evaluate(MARKED)]
        assert "".join("".join(marked).split()) == "Someboldwords,alink&code:letone=2;"
        await page.evaluate("() => document.querySelector('.sidebar .new').click()")
        await turn.wait_for(state="detached")
        assert await page.evaluate(MARKED) == []


async def test_several_answers_are_marked_each_and_so_is_the_text_after_a_call(new_page, embedded):
    async with running(embedded) as gateway:
        page = await new_page(gateway.url)
        await show_sureness(page)
        async with settings_of(page) as settings:
            await settings.get_by_label("Answers to choose from").select_option("2")
        turn = await answered(page, QUESTION)
        for column in await turn.locator(".column .text").all():
            box = await column.bounding_box()
            assert await column.get_attribute("tabindex") == "0"
            inside = [at for *_, at in await page.evaluate(MARKED) if at[0] > box["x"]]
            assert any(at[0] < box["x"] + box["width"] for at in inside)
        async with settings_of(page) as settings:
            await settings.get_by_label("Calculator").check()
        turn = await answered(page, "What is 734 plus 58?")
        assert await turn.locator(".call .returned").text_content() == '{"result": 792}'
        assert await turn.locator(".call + .text[tabindex='0']").count() == 1


async def test_an_answer_that_goes_on_after_a_reload_is_marked_whole(new_page):
    gate = asyncio.Event()
    before, after = Say("One two ", top_logprobs=2), Say("three.", top_logprobs=2)
    async with scripted_gateway(before, Gate(gate), after) as gateway:
        page = await new_page(gateway.url)
        await show_sureness(page)
        await ask(page, "Hi")
        await wait_for_text(page, ANSWER, "One two")
        await load_again(page)
        await wait_for_text(page, ANSWER, "One two")
        gate.set()
        turn = page.locator(".assistant:not(.streaming)", has_text="One two three.")
        await turn.wait_for()
        marked = [piece for piece, _, _ in await page.evaluate(MARKED)]
        assert marked == ["One", "two", "three."]
        assert await turn.locator(".legend").is_visible()


async def test_an_answer_that_has_ended_is_marked_after_a_reload_too(new_page):
    script = Reason("Hm."), Say("One **two** three.", top_logprobs=2)
    async with scripted_gateway(*script) as gateway:
        page = await new_page(gateway.url)
        await show_sureness(page)
        turn = await answered(page, "Hi")
        await turn.locator(".text").focus()
        await page.keyboard.press("ArrowRight")
        before = [piece[:2] for piece in await page.evaluate(MARKED)], await odds(page)
        assert all(before)
        await load_again(page)
        await turn.locator(".text[tabindex]").focus()
        await page.keyboard.press("ArrowRight")
        assert ([piece[:2] for piece in await page.evaluate(MARKED)], await odds(page)) == before
        assert await turn.locator(".text strong").text_content() == "two"
        assert await turn.locator(".legend").is_visible()
        assert "Thought for" in await turn.locator(".reasoning summary").text_content()


async def test_of_a_long_answer_as_much_is_kept_as_a_browser_can_bear(blank_page):
    async with scripted_gateway(Say("x")) as gateway:
        page = await blank_page(gateway)
        kept, same, other = await page.evaluate(
            """async () => {
                const { keptOf, piecesFrom } = await import("/chat/kept_odds.js");
                const top = [{ token: "a", logprob: -1, bytes: [97] }];
                const tokens = [{ token: "a", logprob: -0.123456, bytes: [97], top_logprobs: top }];
                const text = "a".repeat(10_000);
                const kept = keptOf([...text].map((one) => ({ text: one, tokens })));
                const again = piecesFrom(kept, text);
                return [
                    kept.filter(([, some]) => some.length).length,
                    again.map((one) => one.text).join("") === text && again[0].tokens,
                    piecesFrom(kept, "another"),
                ];
            }"""
        )
    assert kept == 2000
    assert [(one["token"], one["logprob"]) for one in same] == [("a", -0.1235)]
    assert other is None


async def test_without_the_api_each_piece_is_an_element(new_page):
    async with scripted_gateway(Say("a b **c**", top_logprobs=2)) as gateway:
        page = await new_page(gateway.url)
        await page.evaluate("() => { delete globalThis.Highlight; }")
        await show_sureness(page)
        turn = await answered(page, "Hi")
        pieces = turn.locator(".text .piece")
        assert await pieces.all_text_contents() == ["a", "b", "**c**"]
        await pieces.nth(0).focus()
        first = await odds(page)
        assert len(first) > 1
        await page.keyboard.press("ArrowRight")
        assert await pieces.nth(1).get_attribute("aria-describedby") == "odds-shown"
        await page.keyboard.press("End")
        assert await pieces.last.evaluate("(one) => one === document.activeElement")
        await page.keyboard.press("Escape")
        assert await odds(page) == []


async def test_a_provider_without_probabilities_gives_plain_text_once_the_marks_can_be_loaded(
    new_page,
):
    async with scripted_gateway(Say("a b c")) as gateway:
        page = await new_page(gateway.url)
        await page.route("**/chat/odds.js", lambda route: route.abort())
        await show_sureness(page)
        await ask(page, "Hi")
        await wait_for_text(page, ".ask .wrong", "can't be loaded now")
        assert await page.get_by_label("Message", exact=True).input_value() == "Hi"
        await page.unroute("**/chat/odds.js")
        turn = await answered(page, "Hi")
        assert await turn.locator(".text").text_content() == "a b c"
        assert await turn.locator(".text .piece").count() == 0


def token(text, whole=True):
    return {"token": text, "logprob": -1.0, "bytes": [0] if whole else None, "top_logprobs": []}


CUT_UP = [
    ("a fox", [token("a"), token(" fox")], [["a", 1], [" fox", 1]]),
    ("a fox", [token("a"), token("fox")], [["a", 1], [" fox", 1]]),  # a lost blank
    ("né!", [token("n"), token("�", whole=False), token("�", whole=False), token("!")],
     [["n", 1], ["é", 2], ["!", 1]]),
    ("é", [token("�", whole=False), token("�", whole=False)], [["é", 2]]),
    ("a<", [token("a"), token("<b")], [["a", 1], ["<", 1]]),  # a part is held back
    ("b c", [token(" c")], [["b c", 1]]),  # and comes with the next
    ("plain", [], [["plain", 0]]),
    ("", [token("")], []),
]  # fmt: skip


async def test_a_text_is_cut_up_by_its_tokens_and_never_changed(blank_page):
    async with scripted_gateway(Say("x")) as gateway:
        page = await blank_page(gateway)
        pieces = await page.evaluate(
            """async (texts) => {
                const { piecesOf } = await import("/chat/sureness.js");
                return texts.map(([text, tokens]) =>
                    piecesOf(text, tokens).map((piece) => [piece.text, piece.tokens.length]));
            }""",
            [[text, tokens] for text, tokens, _ in CUT_UP],
        )
    assert pieces == [expected for *_, expected in CUT_UP]
