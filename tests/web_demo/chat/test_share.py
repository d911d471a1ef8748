"""An answer is given away: as a tape that plays it, and as programs that ask for it."""

import asyncio

import pytest

from gateway.server.pages import web_root
from provider.scripted import Gate, Reason, Say
from tests.web_demo.conftest import (
    answered,
    ask,
    in_node,
    load_again,
    scripted_gateway,
    settings_of,
    wait_for_text,
    wants_node,
)

LINK = "() => navigator.clipboard.readText()"


async def may_copy(page):
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])


@pytest.mark.browser
async def test_an_answer_is_shared_as_a_link_that_plays_it_without_what_was_said_before(new_page):
    async with scripted_gateway(Reason("Well. "), Say("one two three")) as gateway:
        page = await new_page(gateway.url)
        await may_copy(page)
        async with settings_of(page) as settings:
            await settings.get_by_label("Instructions").fill("A secret instruction.")
        await answered(page, "A secret question")
        turn = await answered(page, "Count for me")
        await load_again(page)
        await turn.get_by_role("button", name="Share").click()
        await turn.get_by_role("button", name="Copy link").click()
        await turn.get_by_role("button", name="Copied").wait_for()
        link = await page.evaluate(LINK)
        assert link.startswith(f"{gateway.url}#tape/")
        await turn.get_by_role("button", name="Play").click()
        await wait_for_text(page, ".tapes .tile[data-state=done] .tile-text", "one two three")

        other = await new_page(link, ready=False)
        await wait_for_text(other, ".tapes .tile[data-state=done] .tile-text", "one two three")
        assert await other.locator(".tapes .tile-title").text_content() == "Count for me"
        text = await other.evaluate(
            """async () => {
                const { fromLink, toText } = await import("/tapes/tape.js");
                return toText(await fromLink(location.hash.slice("#tape/".length)));
            }"""
        )
        assert "Count for me" in text
        assert "secret" not in text
    assert len(gateway.provider.requests) == 2, "the tape asks no model"


@pytest.mark.browser
async def test_an_answer_is_saved_as_a_tape_and_too_long_a_one_has_no_link(new_page, tmp_path):
    words = " ".join(f"{number * 7919 % 100003:x}" for number in range(20000))
    async with scripted_gateway(Say(words[:90000].replace(" ", "-"))) as gateway:
        page = await new_page(gateway.url)
        turn = await answered(page, "Tell")
        await turn.get_by_role("button", name="Share").click()
        await wait_for_text(page, ".panel", "too long for a link")
        async with page.expect_download() as download:
            await turn.get_by_role("button", name="Save as a file").click()
        path = tmp_path / "answer.json"
        await (await download.value).save_as(path)
        assert '"mlx-gateway.tape"' in path.read_text()
        await turn.get_by_role("button", name="Close Share").click()
        assert await page.locator(".panel").count() == 0


@pytest.mark.browser
async def test_the_code_of_an_answer_asks_for_what_the_page_has_asked_for(new_page):
    async with scripted_gateway(Say("There.")) as gateway:
        page = await new_page(gateway.url)
        await may_copy(page)
        async with settings_of(page) as settings:
            await settings.get_by_label("Repeatable").fill("7")
            await settings.get_by_label("Instructions").fill("Be brief.")
        await answered(page, "First")
        turn = await answered(page, 'Say "hi"')
        async with settings_of(page) as settings:
            await settings.get_by_label("Repeatable").fill("8")  # changes no answer that is there
        await turn.get_by_role("button", name="Code", exact=True).click()
        await turn.get_by_role("button", name="Python").click()
        await turn.get_by_role("button", name="Copy program").click()
        await turn.get_by_role("button", name="Copied").wait_for()
        namespace = {}
        program = await page.evaluate(LINK)
        exec(program.replace("asyncio.run(main())", ""), namespace)
        await namespace["main"]()
        asked, again = (one for one in gateway.provider.requests[1:])
        assert (again.options, again.system_prompt) == (asked.options, "Be brief.")
        assert [one["content"] for one in again.options["messages"]] == [
            "First",
            "There.",
            'Say "hi"',
        ]
        await turn.get_by_role("button", name="React").click()
        await wait_for_text(page, ".panel pre", "useRun(useGateway")
        await turn.get_by_role("button", name="JavaScript").click()
        await wait_for_text(page, ".panel pre", "client.generate({")
        await turn.get_by_role("button", name="Code", exact=True).click()
        assert await page.locator(".panel").count() == 0


@pytest.mark.browser
async def test_an_answer_that_is_written_offers_neither(new_page):
    gate = asyncio.Event()
    async with scripted_gateway(Say("Half of "), Gate(gate), Say("it.")) as gateway:
        page = await new_page(gateway.url)
        await ask(page, "Tell")
        await wait_for_text(page, ".text", "Half of")
        assert await page.get_by_role("button", name="Share").count() == 0
        gate.set()
        await page.get_by_role("button", name="Share").wait_for()


@wants_node
async def test_a_tape_has_the_pace_of_the_answer_and_a_usual_one_where_none_is_known():
    paced, plain, failed = await in_node(
        "chat/answer_tape.js",
        """
        const { createRecording } = await import(url);
        const one = createRecording();
        const chunk = (text, channel = "answer", choice = 0) => ({ text, channel, choice });
        one.add(100, chunk("Hm. ", "reasoning"));
        one.add(130, chunk("One "));
        one.add(131, chunk("other answer", "answer", 1));
        one.add(180, chunk("two"));
        const life = { first: 40, queued: 5, prompt: 9, cached: 3, tokens: 3, rate: 20 };
        const turn = { content: "One two", reasoning: "Hm. ", ended: "stop", life };
        const question = { content: "Count" };
        const chunks = (given) => m.tapeOf({ ...turn, ...given }, question).frames
            .map(([at, way, { type, text, channel = "" }]) => [at, type, text ?? "", channel]);
        const error = { code: "model_error", message: "out of breath" };
        console.log(JSON.stringify([
            chunks({ pace: one.of(0) }), chunks({ pace: one.of(1) }),
            m.tapeOf({ ...turn, ended: "error", error }, null).frames.at(-1)[2],
        ]));
        """,
        (web_root() / "chat/recording.js").as_uri(),
    )
    assert paced == [
        [0, "generate", "", ""],
        [5, "started", "", ""],
        [40, "chunk", "Hm. ", "reasoning"],
        [70, "chunk", "One ", ""],
        [120, "chunk", "two", ""],
        [120, "done", "", ""],
    ]
    assert [(at, text) for at, kind, text, _ in plain if kind == "chunk"] == [
        (90, "Hm. "),
        (140, "One"),
        (190, " two"),
    ]
    assert (failed["type"], failed["code"]) == ("error", "model_error")
