"""How sure the model was of each piece of a text, on the demo page and the real model."""

import math

import pytest

from provider import MLXProvider
from provider.scripted import Say
from tests.support.servers import running
from tests.web_demo.conftest import answered, scripted_gateway, settings_of

pytestmark = pytest.mark.browser

QUESTION = "Tell me a story about a fox named Zorvan"
MARKS = [0.9, 0.7, 0.4, 0.15]


async def show_sureness(page, temperature="1.2"):
    async with settings_of(page) as settings:
        await settings.get_by_label("Show the probability of each word").check()
        await settings.get_by_label("Temperature").fill(temperature)
        await settings.get_by_label("Seed").fill("3")
        await settings.get_by_label("Length limit of an answer").fill("80")


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


async def test_each_piece_is_marked_by_its_probability(new_page):
    provider = MLXProvider()
    async with running(provider) as gateway:
        text, tokens = await drawn_by(provider, temperature=1.2, seed=3, max_tokens=80)
        page = await new_page(gateway.url)
        await show_sureness(page)
        turn = await answered(page, QUESTION)
        assert await turn.locator(".text").text_content() == text
        pieces = await turn.locator(".text .piece").evaluate_all(
            "(all) => all.map((one) => [one.textContent, Number(one.dataset.mark)])"
        )
        chances = [math.exp(token["logprob"]) for token in tokens]
        expected = [sum(chance < least for least in MARKS) for chance in chances]
        assert [mark for _, mark in pieces] == expected
        assert len(set(expected)) > 3, "a poor test: the model was as sure of all of it"
        shown = ["".join(piece.split()) for piece, _ in pieces]
        assert shown == ["".join(token["token"].split()) for token in tokens]
        assert await turn.locator(".legend").is_visible()
    await provider.aclose()


async def odds(page):
    """Return the rows that are shown: what, how likely, whether it was drawn."""
    return await page.locator(".odds p").evaluate_all(
        """(rows) => rows.map((row) => [row.querySelector(".name").textContent,
            row.querySelector(".percent").textContent, row.classList.contains("drawn")])"""
    )


async def test_the_odds_are_shown_to_a_mouse_to_the_keyboard_and_to_a_finger(new_page):
    provider = MLXProvider()
    async with running(provider) as gateway:
        page = await new_page(gateway.url, has_touch=True)
        await show_sureness(page)
        turn = await answered(page, QUESTION)
        pieces = turn.locator(".text .piece")

        await turn.locator('.piece[data-mark="4"]').first.hover()
        rows = await odds(page)
        assert len(rows) in {3, 4}
        assert sum(drawn for *_, drawn in rows) == 1
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
        assert await pieces.nth(1).get_attribute("aria-describedby") == "odds-shown"
        await page.keyboard.press("End")
        assert await pieces.last.evaluate("(one) => one === document.activeElement")
        await page.keyboard.press("Home")
        assert await odds(page) == first
        await page.keyboard.press("Escape")
        assert await odds(page) == []
        await page.keyboard.press("Tab")
        copy = turn.get_by_role("button", name="Copy")
        assert await copy.evaluate("(one) => one === document.activeElement")

        await pieces.nth(1).tap()
        assert await odds(page) == second
    await provider.aclose()


async def test_several_answers_are_marked_each(new_page):
    provider = MLXProvider()
    async with running(provider) as gateway:
        page = await new_page(gateway.url)
        await show_sureness(page)
        async with settings_of(page) as settings:
            await settings.get_by_label("Answers per message").select_option("2")
        turn = await answered(page, QUESTION)
        for column in await turn.locator(".column").all():
            joined = "".join(await column.locator(".piece").all_text_contents())
            whole = await column.locator(".text").text_content()
            assert "".join(joined.split()) == "".join(whole.split())
            assert len(joined) > 20
    await provider.aclose()


async def test_the_text_after_a_tool_call_is_marked_too(new_page):
    provider = MLXProvider()
    async with running(provider) as gateway:
        page = await new_page(gateway.url)
        await show_sureness(page, temperature="0")
        async with settings_of(page) as settings:
            await settings.get_by_label("Built-in tools").check()
        turn = await answered(page, "What is 734 plus 58?")
        assert await turn.locator(".call .returned").text_content() == '{"result": 792}'
        await turn.locator(".call + .text .piece").first.hover()
        assert len(await odds(page)) in {3, 4}
        assert await turn.locator(".call + .text .piece[tabindex='0']").count() == 1
    await provider.aclose()


async def test_a_provider_without_probabilities_gives_plain_text(new_page):
    async with scripted_gateway(Say("a b c")) as gateway:
        page = await new_page(gateway.url)
        await show_sureness(page)
        turn = await answered(page, "Hi")
        assert await turn.locator(".text").text_content() == "a b c"
        assert await turn.locator(".text .piece").count() == 0


def token(text, whole=True):
    return {"token": text, "logprob": -1.0, "bytes": [0] if whole else None, "top_logprobs": []}


@pytest.mark.parametrize(
    ("text", "tokens", "expected"),
    [
        ("a fox", [token("a"), token(" fox")], [["a", 1], [" fox", 1]]),
        ("a fox", [token("a"), token("fox")], [["a", 1], [" fox", 1]]),  # a lost blank
        ("né!", [token("n"), token("�", whole=False), token("�", whole=False), token("!")],
         [["n", 1], ["é", 2], ["!", 1]]),
        ("é", [token("�", whole=False), token("�", whole=False)], [["é", 2]]),
        ("a<", [token("a"), token("<b")], [["a", 1], ["<", 1]]),  # a part is held back
        ("b c", [token(" c")], [["b c", 1]]),  # and comes with the next
        ("plain", [], [["plain", 0]]),
        ("", [token("")], []),
    ],
)  # fmt: skip
async def test_a_text_is_cut_up_by_its_tokens_and_never_changed(new_page, text, tokens, expected):
    async with scripted_gateway(Say("x")) as gateway:
        page = await new_page(gateway.url)
        pieces = await page.evaluate(
            """async ([text, tokens]) => (await import("/chat/sureness.js")).piecesOf(text, tokens)
                .map((piece) => [piece.text, piece.tokens.length])""",
            [text, tokens],
        )
    assert pieces == expected
