"""Conversations on the page: kept, found, changed, and gone on with."""

import asyncio
import json

import pytest

from gateway.protocol.codes import ErrorCode
from provider.interface import (
    ChoiceResponse,
    ContextWindowExceededError,
    GenerationError,
    ModelNotFoundError,
    ResourceExceededError,
)
from provider.scripted import Call, Fail, Gate, Queue, Say, ScriptedProvider
from tests.support.servers import eventually, running
from tests.web_demo.conftest import (
    ANSWER,
    FIGURES,
    answered,
    ask,
    in_node,
    load_again,
    scripted_gateway,
    settings_of,
    tab_beside,
    wait_for_text,
    wait_until_kept,
    wants_node,
)

pytestmark = pytest.mark.browser

TALKS = ".talks a"


def echo(request):
    """Say what was asked, and which time this is."""
    said = [m["content"] for m in request.options["messages"] if m["role"] == "user"]
    return [Say(f"answer {echo.count()} to {said[-1]}")]


@pytest.fixture
def counted():
    """A script whose answers have numbers."""
    count = iter(range(1, 100))
    echo.count = lambda: next(count)
    return ScriptedProvider(script=echo, tokens_per_second=None)


async def last_prompt(gateway):
    return [m["content"] for m in gateway.provider.requests[-1].options["messages"]]


async def test_a_conversation_is_there_after_a_reload_and_goes_on(new_page, counted):
    async with running(counted) as gateway:
        page = await new_page(gateway.url)
        await answered(page, "First **question**")
        await page.get_by_label("Message", exact=True).fill("a draft")
        await wait_until_kept(page, "a draft")
        await page.reload()
        await wait_for_text(page, ANSWER, "answer 1 to First question")
        assert await page.locator(".user").all_text_contents() == ["First **question**"]
        await page.wait_for_function(
            "() => document.querySelector('.ask textarea').value === 'a draft'"
        )
        await answered(page, "Second")
        assert await last_prompt(gateway) == [
            "First **question**",
            "answer 1 to First **question**",
            "Second",
        ]


async def test_conversations_are_listed_found_renamed_and_deleted_with_undo(new_page, counted):
    async with running(counted) as gateway:
        page = await new_page(gateway.url)
        for question in ("About foxes", "About numbers"):
            await page.get_by_role("button", name="New chat").click()
            await answered(page, question)
        titles = page.locator(TALKS)
        await titles.nth(1).wait_for()
        assert await titles.all_text_contents() == ["About numbers", "About foxes"]
        await page.get_by_label("Search conversations").fill("answer foxes")
        await page.wait_for_function("(s) => document.querySelectorAll(s).length === 1", arg=TALKS)
        await titles.first.click()
        await wait_for_text(page, ANSWER, "answer 1 to About foxes")
        await page.get_by_label("Search conversations").fill("")
        await titles.nth(1).wait_for()
        await page.locator(".talks li", has_text="About foxes").hover()
        await page.get_by_role("button", name="Rename “About foxes”").click()
        await page.get_by_label("Title").fill("Renard")
        await page.get_by_label("Title").press("Enter")
        await page.locator(TALKS, has_text="Renard").hover()
        await page.get_by_role("button", name="Delete “Renard”").click()
        await page.wait_for_function("(s) => document.querySelectorAll(s).length === 1", arg=TALKS)
        await page.get_by_role("button", name="Undo").click()
        await page.locator(TALKS, has_text="Renard").click()
        await wait_for_text(page, ANSWER, "answer 1 to About foxes")


async def test_regenerating_and_editing_keep_what_was_there(new_page, counted):
    async with running(counted) as gateway:
        page = await new_page(gateway.url)
        await answered(page, "Question")
        await page.get_by_role("button", name="Regenerate").click()
        await wait_for_text(page, ANSWER, "answer 2 to Question")
        assert await page.locator(".version").all_text_contents() == ["2/2"]
        await page.get_by_role("button", name="Earlier version").click()
        await wait_for_text(page, ANSWER, "answer 1 to Question")
        await page.get_by_role("button", name="Edit").click()
        await page.get_by_label("Edit message").fill("Other")
        await page.get_by_label("Edit message").press("Enter")
        await wait_for_text(page, ANSWER, "answer 3 to Other")
        assert await last_prompt(gateway) == ["Other"]
        await wait_until_kept(page, "answer 3 to Other")
        await page.reload()
        await wait_for_text(page, ANSWER, "answer 3 to Other")
        await page.get_by_role("button", name="Earlier version").click()
        await wait_for_text(page, ANSWER, "answer 2 to Question")


async def test_an_answer_that_was_stopped_goes_on(new_page):
    gate = asyncio.Event()

    def script(request):
        if request.options.get("continue_final_message"):
            return [Say(" and the end.")]
        return [Say("The beginning"), Gate(gate)]

    async with running(ScriptedProvider(script=script, tokens_per_second=None)) as gateway:
        page = await new_page(gateway.url)
        await ask(page, "Tell")
        await wait_for_text(page, ANSWER, "The beginning")
        await page.keyboard.press("Escape")
        await page.get_by_role("button", name="Continue").click()
        await wait_for_text(page, ANSWER, "The beginning and the end.")
        assert await last_prompt(gateway) == ["Tell", "The beginning"]


async def test_a_reload_goes_on_with_the_running_answer(new_page):
    gate = asyncio.Event()
    async with scripted_gateway(Say("Before. "), Gate(gate), Say("After.")) as gateway:
        page = await new_page(gateway.url)
        await ask(page, "Tell")
        await wait_for_text(page, ANSWER, "Before.")
        await load_again(page)
        await wait_for_text(page, ANSWER, "Before.")
        await page.locator(".talks .live", has_text="Tell").wait_for()
        gate.set()
        await wait_for_text(page, ANSWER, "Before. After.")
        await page.locator(".assistant:not(.streaming)").wait_for()
        await page.locator(".talks a:not(.live)").wait_for()
        assert len(gateway.provider.requests) == 1


async def test_an_answer_that_is_nested_too_deeply_ends_and_is_there_again(new_page):
    async with scripted_gateway(Say(">" * 1950), Say(" deep.")) as gateway:
        page = await new_page(gateway.url)
        turn = await answered(page, "Tell")
        assert await turn.locator(".text").text_content() == ">" * 1950 + " deep."
        await load_again(page)
        await wait_for_text(page, ANSWER, "deep.")
        assert await page.locator(ANSWER).text_content() == ">" * 1950 + " deep."
        await page.locator(".talks a:not(.live)").wait_for()


async def test_a_message_that_is_sent_too_early_waits_and_can_be_taken_back(new_page):
    gate = asyncio.Event()
    async with scripted_gateway(Say("One. "), Gate(gate)) as gateway:
        page = await new_page(gateway.url)
        await ask(page, "First")
        await wait_for_text(page, ANSWER, "One.")
        await ask(page, "Too early")
        await page.get_by_role("button", name="Take the waiting message back").click()
        assert await page.get_by_label("Message", exact=True).input_value() == "Too early"
        await ask(page, "Then this")
        gate.set()
        await eventually(lambda: len(gateway.provider.requests) == 2)
        assert (await last_prompt(gateway))[-1] == "Then this"


async def test_a_failed_answer_says_its_code_and_is_asked_again(new_page):
    failing = iter([True, False])

    def script(request):
        return [Fail(GenerationError("out of breath"))] if next(failing) else [Say("There.")]

    async with running(ScriptedProvider(script=script, tokens_per_second=None)) as gateway:
        page = await new_page(gateway.url)
        await ask(page, "Tell")
        await page.locator(".note code", has_text="model_error").wait_for()
        await page.get_by_role("button", name="Retry").click()
        await wait_for_text(page, ANSWER, "There.")
        assert await last_prompt(gateway) == ["Tell"]


class Choosing(ScriptedProvider):
    """Writes two answers at once, each up to a gate and after it."""

    async def _events(self, request, script, calls):
        async for response in super()._events(request, script, calls):
            if not response.content:
                yield response
                continue
            for choice in range(2):
                yield ChoiceResponse(content=f"{response.content}{choice} ", choice=choice)


async def test_a_reload_goes_on_with_each_of_several_answers(new_page):
    gate = asyncio.Event()
    script = [Say("Before "), Gate(gate), Say("after ")]
    async with running(Choosing(script=script, tokens_per_second=None)) as gateway:
        page = await new_page(gateway.url)
        async with settings_of(page) as settings:
            await settings.get_by_label("Answers to choose from").select_option("2")
        await ask(page, "Tell")
        await wait_for_text(page, ANSWER, "Before 1")
        await load_again(page)
        await wait_for_text(page, ANSWER, "Before 1")
        gate.set()
        await page.locator(".assistant:not(.streaming)").wait_for()
        texts = await page.locator(ANSWER).all_text_contents()
        assert texts == ["Before 0 after 0 ", "Before 1 after 1 "]
        await page.get_by_label("Keep this one").nth(1).check()
        await answered(page, "And then?")
        assert (await last_prompt(gateway))[1] == "Before 1 after 1 "


FAILURES = [
    (ContextWindowExceededError(9, 12), "context_too_long", "Begin a new conversation, or ask"),
    (ResourceExceededError("full"), "overloaded", "Try again in a moment."),
    (ModelNotFoundError("lost"), "unknown_model", "Choose another model at the upper edge"),
    (GenerationError("out of breath"), "model_error", "The server's log says more."),
]


async def test_an_error_says_what_a_person_can_do_about_it(new_page):
    errors = (error for error, *_ in FAILURES)
    async with scripted_gateway(script=lambda _: [Fail(next(errors))]) as gateway:
        page = await new_page(gateway.url)
        for index, (_, code, remedy) in enumerate(FAILURES):
            await ask(page, "Tell")
            note = page.locator(".note").nth(index)
            await note.locator("code", has_text=code).wait_for()
            await note.locator(".remedy", has_text=remedy).wait_for()
        await wait_until_kept(page, "out of breath")
        await page.reload()
        await wait_for_text(page, ".note .remedy", "The server's log says more.")


@wants_node
async def test_each_error_code_has_a_remedy():
    codes = json.dumps([str(code) for code in ErrorCode])
    without = f"{codes}.filter((code) => !m.remedyOf(code))"
    assert await in_node("chat/remedies.js", f"console.log(JSON.stringify({without}));") == []


STORED = """async () => {
    const { openStore } = await import("/store/database.js");
    const store = (globalThis.storeOfTests ??= await openStore());
    const [talks, turns] = [await store.conversations(), await store.turns()];
    const ids = turns.map(({ id }) => id);
    const orphans = turns.filter(({ parent }) => parent !== null && !ids.includes(parent));
    return [talks.map(({ title }) => title), turns.length, orphans.length];
}"""


async def act(page, label, title):
    await page.locator(".talks li", has_text=title).hover()
    await page.get_by_role("button", name=f"{label} “{title}”").click()


async def test_a_name_that_another_tab_has_given_stays(new_page, counted):
    async with running(counted) as gateway:
        page = await new_page(gateway.url)
        await answered(page, "Foxes")
        other = await tab_beside(page)
        await wait_for_text(other, ANSWER, "answer 1")
        await act(page, "Rename", "Foxes")
        await page.get_by_label("Title").fill("Renard")
        await page.get_by_label("Title").press("Enter")
        await wait_for_text(other, TALKS, "Renard")
        await answered(other, "More")
        await wait_until_kept(other, "answer 2")
        assert await other.evaluate(STORED) == [["Renard"], 4, 0]


async def test_a_conversation_that_another_tab_deletes_comes_back_whole_or_not_at_all(new_page):
    gate = asyncio.Event()

    def script(request):
        return [Say("Some text. "), Gate(gate), Say(f"To {request.last_user_text}.")]

    async with scripted_gateway(script=script) as gateway:
        page = await new_page(gateway.url)
        other = await tab_beside(page)
        await ask(other, "First")
        await wait_for_text(other, ANSWER, "Some text.")
        await act(page, "Delete", "First")
        await other.locator(".talks .none").wait_for()
        gate.set()
        await wait_for_text(other, ANSWER, "To First.")
        await other.locator(".assistant:not(.streaming)").wait_for()
        assert await other.evaluate(STORED) == [[], 0, 0]
        await answered(other, "Second")
        await wait_for_text(page, TALKS, "First")
        await wait_until_kept(page, "To Second.")
        assert await page.evaluate(STORED) == [["First"], 4, 0]


async def test_conversations_go_to_a_file_and_come_back(new_page, counted, tmp_path):
    async with running(counted) as gateway:
        page = await new_page(gateway.url)
        await answered(page, "Question")
        async with page.expect_download() as download:
            await page.get_by_role("button", name="Export all").click()
        path = tmp_path / "talks.json"
        await (await download.value).save_as(path)
        assert json.loads(path.read_text())["conversations"][0]["title"] == "Question"
        await page.locator(".sidebar input[type=file]").set_input_files(path)
        await wait_for_text(page, ".undo", "Imported 1 conversation.")
        await page.locator(TALKS).first.hover()
        async with page.expect_download() as download:
            await page.get_by_role("button", name="Export “Question”").first.click()
        assert (await download.value).suggested_filename == "Question.md"
        await (await download.value).save_as(path)
        assert "answer 1 to Question" in path.read_text()
        await page.locator(TALKS).nth(1).wait_for()
        assert await page.locator(TALKS).all_text_contents() == ["Question", "Question"]
        path.write_text(path.read_text().replace("# Question", "# From Markdown"))
        await page.locator(".sidebar input[type=file]").set_input_files(path)
        await page.locator(TALKS, has_text="From Markdown").click()
        await wait_for_text(page, ".assistant", "answer 1 to Question")


# Takes down what is copied, where a page has no clipboard because it came without https.
COPYING = """() => {
    Object.defineProperty(navigator, "clipboard", { value: undefined });
    document.addEventListener("copy", ({ target }) => (globalThis.copied = target.value));
}"""


async def test_a_turn_is_copied_as_it_was_written_without_https_too(new_page):
    async with scripted_gateway(Say("It is **bold**.")) as gateway:
        page = await new_page(gateway.url)
        turn = await answered(page, "Is it?")
        await page.evaluate(COPYING)
        await turn.get_by_role("button", name="Copy").click()
        await turn.get_by_role("button", name="Copied").wait_for()
        assert await page.evaluate("copied") == "It is **bold**."


async def test_a_conversation_that_begins_while_another_room_loads_leaves_the_address(new_page):
    gate = asyncio.Event()

    async def hold(route):
        await gate.wait()
        await route.continue_()

    async with scripted_gateway(Say("There.")) as gateway:
        page = await new_page(gateway.url)
        await page.route("**/wall/room.js", hold)
        opened = await page.evaluate(
            """async () => {
                const box = document.querySelector("textarea");
                location.hash = "#wall";
                box.value = "Hi";
                box.form.requestSubmit();
                await new Promise((resolve) => setTimeout(resolve, 100));
                return location.hash;
            }"""
        )
        gate.set()
        await page.locator("#room-wall:visible").wait_for()
        assert opened.startswith("#wall")


async def test_a_conversation_that_is_deleted_while_it_is_answered_leaves_nothing(new_page):
    gate = asyncio.Event()
    async with scripted_gateway(Say("Some text. "), Gate(gate), Say("More.")) as gateway:
        page = await new_page(gateway.url)
        await ask(page, "Tell")
        await wait_for_text(page, ANSWER, "Some text.")
        await page.locator(TALKS).first.hover()
        await page.get_by_role("button", name="Delete “Tell”").click()
        await eventually(lambda: not gateway.provider.live)
        await page.wait_for_timeout(200)
        kept = await page.evaluate(
            """async () => {
                const { openStore } = await import("/store/database.js");
                const store = await openStore();
                return [(await store.conversations()).length, (await store.turns()).length];
            }"""
        )
        assert kept == [0, 0]


def tool_script(gates):
    """Return a script that calls `add`, and waits at a gate before and after it."""

    def script(request):
        told = [m["content"] for m in request.options["messages"] if m["role"] == "tool"]
        if told:
            return [Say("It is "), Gate(gates[1]), Say(told[-1])]
        return [Say("Let me see. "), Gate(gates[0]), Call("add", {"a": 734, "b": 58})]

    return script


@pytest.mark.parametrize("when", [0, 1])
async def test_a_reload_goes_on_with_an_answer_that_calls_tools(new_page, when):
    gates = [asyncio.Event(), asyncio.Event()]
    provider = ScriptedProvider(script=tool_script(gates), tokens_per_second=None)
    async with running(provider) as gateway:
        page = await new_page(gateway.url)
        async with settings_of(page) as settings:
            await settings.get_by_label("Calculator").check()
        await ask(page, "What is 734 plus 58?")
        if when == 1:
            gates[0].set()
        await wait_for_text(page, ANSWER, ["Let me see.", "It is"][when])
        await load_again(page)
        await wait_for_text(page, ANSWER, "Let me see.")
        for gate in gates:
            gate.set()
        await wait_for_text(page, ANSWER, 'It is {"result": 792}')
        await page.locator(".assistant:not(.streaming)").wait_for()
        assert await page.locator(".call .returned").all_text_contents() == ['{"result": 792}']
        assert len(gateway.provider.requests) == 2


async def test_a_call_that_waits_for_a_person_still_does_after_a_reload(new_page):
    def script(request):
        told = [m["content"] for m in request.options["messages"] if m["role"] == "tool"]
        return [Say(f"It is {told[-1]}.")] if told else [Call("get_weather", {"city": "Ulm"})]

    async with running(ScriptedProvider(script=script, tokens_per_second=None)) as gateway:
        page = await new_page(gateway.url)
        async with settings_of(page) as settings:
            await settings.get_by_label("Calls that you answer by hand").fill(
                '{"name": "get_weather"}'
            )
        await ask(page, "What is the weather in Ulm?")
        await page.get_by_label("What the tool returns").wait_for()
        await wait_until_kept(page, "tool_calls")
        await page.reload()
        box = page.get_by_label("What the tool returns")
        await box.fill("rainy")
        await box.press("Enter")
        await wait_for_text(page, ANSWER, "It is rainy.")
        assert len(gateway.provider.requests) == 2


async def test_an_answer_that_had_not_begun_is_asked_for_again_after_a_reload(new_page):
    gate = asyncio.Event()
    async with scripted_gateway(Queue(3), Gate(gate), Say("There.")) as gateway:
        page = await new_page(gateway.url)
        async with settings_of(page) as settings:
            await settings.get_by_label("Repeatable").fill("7")
        await ask(page, "Tell")
        await wait_for_text(page, FIGURES, "number 3 in the queue")
        await load_again(page)
        await wait_for_text(page, FIGURES, "number 3 in the queue")
        gate.set()
        await wait_for_text(page, ANSWER, "There.")
        await eventually(lambda: not gateway.provider.live)
        assert [one.options["seed"] for one in gateway.provider.requests] == [7, 7]
        assert await last_prompt(gateway) == ["Tell"]
        await load_again(page)
        await wait_for_text(page, ANSWER, "There.")
        assert len(gateway.provider.requests) == 2


async def test_what_was_to_go_on_is_asked_for_again_where_it_was(new_page):
    gate = asyncio.Event()

    def script(request):
        if request.options.get("continue_final_message"):
            return [Queue(2), Gate(gate), Say(" and the end.")]
        return [Say("The beginning"), Gate(gate)]

    async with running(ScriptedProvider(script=script, tokens_per_second=None)) as gateway:
        page = await new_page(gateway.url)
        await ask(page, "Tell")
        await wait_for_text(page, ANSWER, "The beginning")
        await page.keyboard.press("Escape")
        await page.get_by_role("button", name="Continue").click()
        await wait_for_text(page, FIGURES, "number 2 in the queue")
        await load_again(page)
        await wait_for_text(page, FIGURES, "number 2 in the queue")
        gate.set()
        await wait_for_text(page, ANSWER, "The beginning and the end.")
        assert await last_prompt(gateway) == ["Tell", "The beginning"]
