"""The demo page in a real Chromium."""

import asyncio
import hashlib
import re

import pytest

from gateway.configuration.settings import Settings
from gateway.server.server import Gateway
from gateway.server.tokens import Token, Tokens
from provider import MLXProvider
from provider.interface import GenerationError
from provider.scripted import Call, Fail, Gate, Pause, Prefill, Reason, Say, ScriptedProvider
from tests.support.servers import eventually, running
from tests.support.tiny_models import LLAMA, write_model
from tests.web_demo.conftest import (
    ANSWER,
    FIGURES,
    TIMEOUT_MS,
    answered,
    ask,
    scripted_gateway,
    settings_of,
    wait_for_text,
    wait_until_kept,
)

pytestmark = pytest.mark.browser


async def lengths(page, times=6):
    """Watch the answers' lengths at the page's own frames, each time that they change."""
    return await page.evaluate(
        """async ([selector, times]) => {
            const seen = [];
            while (seen.length < times) {
                const shown = [...document.querySelectorAll(selector)];
                const now = shown.map((element) => element.textContent.length);
                if (JSON.stringify(now) !== JSON.stringify(seen.at(-1))) seen.push(now);
                await new Promise(requestAnimationFrame);
            }
            return seen;
        }""",
        [ANSWER, times],
    )


async def test_a_gateway_with_tokens_asks_for_one_and_remembers_it_for_the_tab(new_page):
    tokens = Tokens([Token("alice", hashlib.sha256(b"sesame").hexdigest())])
    provider = ScriptedProvider(tokens_per_second=None)
    async with running(provider, tokens) as gateway:
        page = await new_page(gateway.url, ready=False)
        door = page.locator("#door")
        await door.get_by_label("Token").fill("wrong")
        await door.get_by_role("button", name="Connect").click()
        await wait_for_text(page, "#door-reason", "This token is wrong")
        await page.keyboard.press("Escape")  # it stays
        await door.get_by_label("Token").fill("sesame")
        await door.get_by_role("button", name="Connect").click()
        await wait_for_text(page, "#state", "connected")
        await page.reload()
        await wait_for_text(page, "#state", "connected")
        page = await new_page(f"{gateway.url}#token=sesame")
        assert "sesame" not in page.url


async def test_a_plus_in_the_token_of_an_address_is_one(new_page):
    tokens = Tokens([Token("alice", hashlib.sha256(b"open+sesame").hexdigest())])
    async with running(ScriptedProvider(), tokens) as gateway:
        page = await new_page(f"{gateway.url}#token=open+sesame")
        assert "sesame" not in page.url


async def test_a_message_streams_in_and_does_not_appear_whole(new_page):
    async with scripted_gateway(tokens_per_second=15) as gateway:
        page = await new_page(gateway.url)
        assert await page.title() == "mlx-gateway"
        assert await page.locator("#model").text_content() == "scripted"
        await ask(page, "Tell me a story")
        seen = [sum(now) for now in await lengths(page)]
        assert seen == sorted(seen)
        gateway.provider.tokens_per_second = 1000
        await wait_for_text(page, ANSWER, "The end.")
        whole = len(await page.locator(ANSWER).text_content())
        assert seen[-1] < whole / 2
        assert re.search(
            r"first token [\d.]+ ms.*\d+ tokens.*\d+ tokens/s",
            await page.locator(FIGURES).text_content(),
        )


@pytest.mark.parametrize("how", ["button", "escape"])
async def test_stop_keeps_the_text_and_the_next_message_works(new_page, how):
    async with scripted_gateway(tokens_per_second=40) as gateway:
        page = await new_page(gateway.url)
        await ask(page, "First")
        await wait_for_text(page, ANSWER, "Sentence 1 ")
        gateway.provider.tokens_per_second = 1  # so that it isn't over before it is stopped
        if how == "button":
            await page.get_by_role("button", name="Stop").click()
        else:
            await page.keyboard.press("Escape")
        await wait_for_text(page, FIGURES, "stopped by you in")
        kept = await page.locator(ANSWER).text_content()
        assert "Sentence 1 " in kept
        assert "The end." not in kept
        await eventually(lambda: not gateway.provider.live)
        gateway.provider.tokens_per_second = 1000
        await ask(page, "Second")
        await wait_for_text(page, ANSWER, "You said: Second")
        messages = gateway.provider.requests[1].options["messages"]
        said = ["".join(m["content"].split()) for m in messages]  # elements end where lines did
        assert said == ["First", "".join(kept.split()), "Second"]


async def test_a_server_that_goes_away_is_said_and_the_text_is_kept(new_page):
    provider = ScriptedProvider(script=[Say("Half of it"), Pause(3600)], tokens_per_second=None)
    async with running(provider) as gateway:
        page = await new_page(gateway.url)
        await ask(page, "Hi")
        await wait_for_text(page, ANSWER, "Half of it")
        port = gateway.port
        for connection in list(gateway._connections):
            connection._socket.transport.abort()
        await gateway.close()
    await page.locator('#state:not([data-state="open"])', has_text="conn").wait_for()
    again = ScriptedProvider(script=[Say("Here again")], tokens_per_second=None)
    async with Gateway(again, Settings(port=port)):
        await wait_for_text(page, ".note", "The connection to the gateway was lost. What came so")
        assert await page.locator(ANSWER).text_content() == "Half of it"
        await page.wait_for_selector('#state[data-state="open"]')
        await ask(page, "And now?")
        await wait_for_text(page, ANSWER, "Here again")


async def test_an_error_is_shown_and_the_conversation_goes_on(new_page):
    error = GenerationError("the model is out of breath")
    async with scripted_gateway(Say("So far"), Fail(error)) as gateway:
        page = await new_page(gateway.url)
        await ask(page, "Hi")
        await wait_for_text(page, ".note", "the model is out of breath")
        assert await page.locator(ANSWER).text_content() == "So far"
        await ask(page, "Again")
        await eventually(lambda: len(gateway.provider.requests) == 2)


async def test_the_prefill_is_shown_before_the_text(new_page):
    gate = asyncio.Event()
    async with scripted_gateway(Prefill(100, 400), Gate(gate), Say("There.")) as gateway:
        page = await new_page(gateway.url)
        await ask(page, "Hi")
        await wait_for_text(page, FIGURES, "reading the prompt: 100 of 400 tokens")
        assert await page.locator(f"{FIGURES} .meter").is_visible()
        gate.set()
        await wait_for_text(page, ANSWER, "There.")


# Takes down what the life line says when the first text is painted.
BESIDE = """([answer, figures]) => {
    globalThis.beside = "";
    const look = () => {
        if (!document.querySelector(answer)?.textContent) return requestAnimationFrame(look);
        beside = document.querySelector(figures).textContent;
    };
    requestAnimationFrame(look);
}"""


async def test_the_life_line_never_says_that_a_text_is_waited_for_beside_it(new_page):
    end = asyncio.Event()
    async with scripted_gateway(Say("There."), Gate(end)) as gateway:
        page = await new_page(gateway.url)
        await page.evaluate(BESIDE, [ANSWER, FIGURES])
        await ask(page, "Hi")
        await page.wait_for_function("() => beside")
        assert "first token" in await page.evaluate("() => beside")
        end.set()


async def test_reasoning_is_apart_and_tool_calls_are_shown(new_page):
    async with scripted_gateway(Reason("Hm."), Say("Yes. "), Call("add", {"a": 1})) as gateway:
        page = await new_page(gateway.url)
        await ask(page, "Hi")
        await wait_for_text(page, ".call .arguments", '{"a": 1}')
        await wait_for_text(page, FIGURES, "nobody answers this call")
        assert await page.locator(".call .name").text_content() == "add"
        assert await page.locator(".reasoning div").text_content() == "Hm."


def with_tool(call):
    """Return a script that asks for a tool and says what it returned."""

    def script(request):
        told = [m["content"] for m in request.options["messages"] if m["role"] == "tool"]
        return [Say("It is "), Say(told[-1])] if told else [Say("Let me see. "), call]

    return ScriptedProvider(script=script, tokens_per_second=None)


async def test_the_page_answers_its_own_tools(new_page):
    async with running(with_tool(Call("add", {"a": 734, "b": 58}))) as gateway:
        page = await new_page(gateway.url)
        async with settings_of(page) as settings:
            await settings.get_by_label("Calculator").check()
        await ask(page, "What is 734 plus 58?")
        await wait_for_text(page, ANSWER, 'It is {"result": 792}')
        assert await page.locator(".call .returned").text_content() == '{"result": 792}'
        await page.locator(".assistant:not(.streaming)").wait_for()
        written = sum(request.produced for request in gateway.provider.requests)
        figures = page.locator(f"{FIGURES} span")
        assert await figures.get_by_text(f"{written} tokens", exact=True).count() == 1
        order = await page.locator(".said").evaluate(
            "(element) => [...element.children].map((child) => child.className)"
        )
        assert order == ["text markdown", "call", "text markdown"]
        await ask(page, "And again?")
        await eventually(lambda: len(gateway.provider.requests) == 3)
    roles = [m["role"] for m in gateway.provider.requests[2].options["messages"]]
    assert roles == ["user", "assistant", "tool", "assistant", "user"]
    assert [tool["name"] for tool in gateway.provider.requests[0].tools] == ["add", "multiply"]


async def write_tools(page, text):
    async with settings_of(page) as settings:
        await settings.get_by_label("Calls that you answer by hand").fill(text)
        return await page.locator("#tools-wrong").text_content()


async def test_the_user_answers_a_tool_of_their_own(new_page):
    async with running(with_tool(Call("get_weather", {"city": "Ulm"}))) as gateway:
        page = await new_page(gateway.url)
        assert await write_tools(page, '{"name": "get_weather"}') == ""
        await ask(page, "What is the weather in Ulm?")
        box = page.get_by_label("What the tool returns")
        await box.fill("rainy")
        await box.press("Enter")
        await wait_for_text(page, ANSWER, "It is rainy")
        assert not await box.is_visible()


async def test_stopping_while_a_tool_waits_for_its_answer(new_page):
    async with running(with_tool(Call("get_weather", {"city": "Ulm"}))) as gateway:
        page = await new_page(gateway.url)
        await write_tools(page, '[{"type": "function", "function": {"name": "get_weather"}}]')
        await ask(page, "What is the weather in Ulm?")
        await page.get_by_label("What the tool returns").wait_for()
        await page.get_by_role("button", name="Stop").click()
        await wait_for_text(page, FIGURES, "stopped by you")
        written = gateway.provider.requests[0].produced
        figures = page.locator(f"{FIGURES} span")
        assert await figures.get_by_text(f"{written} tokens", exact=True).count() == 1
        await wait_until_kept(page, '"model":"scripted"')
        assert len(gateway.provider.requests) == 1


async def test_tools_that_are_none_are_said_to_be(new_page):
    async with scripted_gateway(Say("x")) as gateway:
        page = await new_page(gateway.url)
        assert "not JSON" in await write_tools(page, "{")
        assert 'tool 1 needs a "name"' in await write_tools(page, "[{}]")


async def write_functions(page, code):
    async with settings_of(page):
        await page.locator("#functions").fill(code)


FUNCTION = """{
  name: "get_weather", parameters: {type: "object", properties: {city: {type: "string"}}},
  run: async ({city}) => %s,
}"""


RETURNED = {
    '({city, sky: "rainy"})': '{"city": "Ulm", "sky": "rainy"}',
    "{ throw new TypeError(city); }": '{"error": "TypeError: Ulm"}',
    "typeof document + typeof sessionStorage": "undefinedundefined",
}


async def test_a_function_that_the_user_writes_answers_a_call(new_page):
    async with running(with_tool(Call("get_weather", {"city": "Ulm"}))) as gateway:
        page = await new_page(gateway.url)
        for body, returned in RETURNED.items():
            gateway.provider.requests.clear()
            await page.get_by_role("button", name="New chat").click()
            await write_functions(page, FUNCTION % body)
            await ask(page, "What is the weather in Ulm?")
            await wait_for_text(page, ANSWER, "It is")
            assert await page.locator(".call .returned").text_content() == returned
            (tool,) = gateway.provider.requests[0].tools
            assert (tool["name"], "run" in tool) == ("get_weather", False)


async def test_a_function_that_does_not_end_is_stopped(new_page):
    async with running(with_tool(Call("get_weather", {"city": "Ulm"}))) as gateway:
        page = await new_page(gateway.url)
        await write_functions(page, FUNCTION % "{ for (;;); }")
        await ask(page, "What is the weather in Ulm?")
        await wait_for_text(page, ".call .arguments", "Ulm")
        await page.keyboard.press("Escape")
        await wait_for_text(page, FIGURES, "stopped by you")
        assert len(gateway.provider.requests) == 1


async def test_thinking_after_a_call_stands_below_it_and_stays_as_the_reader_wants_it(new_page):
    gate = asyncio.Event()

    def script(request):
        told = [m for m in request.options["messages"] if m["role"] == "tool"]
        call = [Reason("First."), Call("add", {"a": 1, "b": 2})]
        return [Reason("Then."), Gate(gate), Reason(" Yes."), Say("3")] if told else call

    async with running(ScriptedProvider(script=script, tokens_per_second=None)) as gateway:
        page = await new_page(gateway.url)
        async with settings_of(page) as settings:
            await settings.get_by_label("Calculator").check()
        await ask(page, "What is 1 plus 2?")
        await wait_for_text(page, ".said .reasoning div", "Then.")
        await page.locator(".said .reasoning summary").click()
        gate.set()
        await wait_for_text(page, ANSWER, "3")
        thought = page.locator(".reasoning div")
        assert await thought.all_text_contents() == ["First.", "Then. Yes."]
        assert not await thought.nth(1).is_visible()


async def test_a_call_that_was_cut_off_is_shown_as_it_was_written(new_page):
    provider = MLXProvider({"temperature": 0.0})
    async with running(provider) as gateway:
        page = await new_page(gateway.url)
        await write_tools(page, '{"name": "get_weather"}')
        async with settings_of(page) as settings:
            await settings.get_by_label("Longest answer").fill("6")
        await ask(page, "What is the weather in Tarvola?")
        await page.locator(".call.broken .returned", has_text=re.compile("cut off: .+")).wait_for()
    await provider.aclose()


async def test_an_error_does_not_move_who_reads_back(new_page):
    gate = asyncio.Event()
    script = [Say("word\n" * 100), Gate(gate), Fail(GenerationError("out of breath"))]
    async with scripted_gateway(*script) as gateway:
        page = await new_page(gateway.url)
        await ask(page, "Hi")
        await page.wait_for_function("() => document.querySelector('.scroll').scrollTop > 500")
        await page.evaluate(
            """() => {
                document.querySelector(".scroll").scrollTop = 10;
                return new Promise(requestAnimationFrame); // the page is told with the next frame
            }"""
        )
        gate.set()
        await page.locator(".note", has_text="out of breath").wait_for()
        assert await page.evaluate("() => document.querySelector('.scroll').scrollTop") == 10


async def test_a_lost_connection_is_said_beside_all_else_on_a_phone(new_page):
    async with scripted_gateway(Say("x")) as gateway:
        page = await new_page(gateway.url, viewport={"width": 390, "height": 760})
        port = gateway.port
        await gateway.close()
        await page.locator('#state[data-state="waiting"]').wait_for()
        box = await page.get_by_role("button", name="Settings", exact=True).bounding_box()
        assert box["x"] + box["width"] <= 390
        async with Gateway(gateway.provider, Settings(port=port)):
            await page.wait_for_selector('#state[data-state="open"]')


async def test_the_settings_reach_the_model(new_page):
    async with scripted_gateway(Say("x")) as gateway:
        page = await new_page(gateway.url)
        async with settings_of(page) as settings:
            await settings.get_by_label("Repeatable").fill("7")
            await settings.get_by_label("Instructions").fill("Your name is Marlo.")
        await answered(page, "Hi")
        for thinks in ("yes", "no"):
            async with settings_of(page) as settings:
                await settings.get_by_label("Thinks first").select_option(thinks)
            await answered(page, "Hi")
    requests = gateway.provider.requests
    assert [one.options.get("enable_thinking") for one in requests] == [None, True, False]
    assert [one.options["seed"] for one in requests] == [7, 7, 7]
    assert [one.system_prompt for one in requests] == ["Your name is Marlo."] * 3


async def test_model_text_is_text_and_never_markup(new_page):
    evil = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'
    async with scripted_gateway(Say(evil)) as gateway:
        page = await new_page(gateway.url)
        await ask(page, "Hi")
        await wait_for_text(page, ANSWER, "<script>")
        assert await page.evaluate("window.hacked") is None


async def test_nothing_is_cut_off_at_any_width(new_page):
    widths = (320, 390, 768, 1280)
    async with scripted_gateway(Say("word " * 30 + "x" * 200)) as gateway:
        page = await new_page(gateway.url, viewport={"width": widths[0], "height": 800})
        for width in widths:
            await page.set_viewport_size({"width": width, "height": 800})
            turn = await answered(page, "y" * 200)
            await turn.locator(".text", has_text="xxx").wait_for()
            assert await page.evaluate("document.documentElement.scrollWidth") <= width, width
            box = await page.get_by_label("Message", exact=True).bounding_box()
            assert box["y"] + box["height"] <= 800, f"the input is off the screen at {width}"


# The names in the bars that have no room.
CUT = """() => [...document.querySelectorAll(".foot span, #model .name")]
    .filter((one) => one.checkVisibility())
    .filter((one) => one.offsetWidth > one.parentElement.clientWidth
        || one.scrollWidth > one.clientWidth)
    .map(({ textContent }) => textContent)"""


async def test_a_phone_has_its_rooms_below_until_something_is_written(new_page):
    async with scripted_gateway(Say("There.")) as gateway:
        phone = {"viewport": {"width": 320, "height": 640}, "has_touch": True, "is_mobile": True}
        page = await new_page(gateway.url, **phone)
        await page.wait_for_function("() => !document.querySelector('.latest').hidden")
        assert not await page.locator(".latest").is_visible(), "nothing was said yet"
        await page.locator(".card", has_text="Stop me").tap()
        await wait_for_text(page, ANSWER, "There.")
        box = await page.locator("#rooms a").first.bounding_box()
        assert box["y"] > 500, "a thumb would not reach it"
        assert min(box["width"], box["height"]) >= 44
        assert await page.evaluate("document.documentElement.scrollWidth") <= 320
        await page.locator("#settings-button").tap()
        await page.locator("#settings .field").first.wait_for()
        assert await page.evaluate(CUT) == []
        await page.get_by_role("button", name="Close Settings").tap()
        for room in ("race", "wall", "tape", "chat"):
            await page.locator(f"#rooms [href='#{room}']").tap()
            await page.locator(f"#room-{room}:visible").wait_for()
            assert await page.evaluate("document.documentElement.scrollWidth") <= 320
        await page.get_by_label("Message", exact=True).tap()
        assert not await page.locator("#rooms a").first.is_visible()


async def test_a_gateway_that_stops_says_that_it_did(new_page):
    async with scripted_gateway(Say("Half"), Pause(3600)) as gateway:
        page = await new_page(gateway.url)
        await ask(page, "Hi")
        await wait_for_text(page, ANSWER, "Half")
        await gateway.close()
        await wait_for_text(page, FIGURES, "stopped by the gateway after 1 token")


async def test_an_example_is_one_click(new_page):
    async with scripted_gateway(Say("x")) as gateway:
        page = await new_page(gateway.url)
        await wait_for_text(page, ".runs", "Running here: scripted (reads 8,192 tokens")
        await page.get_by_role("button", name="What is this gateway?").click()
        await wait_for_text(page, ANSWER, "x")
    assert gateway.provider.requests[0].last_user_text == "What is this gateway?"


async def test_one_of_several_models_is_chosen_and_its_loading_is_shown(new_page, tmp_path):
    other = write_model(tmp_path / "other", LLAMA)
    provider = MLXProvider({"model": ["embedded", f"random={other}"], "max_tokens": 20})
    await provider.load()
    async with running(provider) as gateway:
        page = await new_page(gateway.url)
        page.set_default_timeout(3 * TIMEOUT_MS)  # a model is loaded while another writes
        select = page.get_by_label("Model", exact=True)
        assert await select.locator("option").all_text_contents() == ["embedded", "random"]
        await page.evaluate(
            """() => {
                globalThis.seen = [];
                new MutationObserver((records) => records.forEach((record) =>
                    seen.push(record.target.textContent)))
                    .observe(document.body, {childList: true, subtree: true});
            }"""
        )
        async with settings_of(page) as settings:
            await settings.get_by_label("Longest answer").fill("20")
        await select.select_option("random")
        await ask(page, "Hi")
        await wait_for_text(page, f"{FIGURES} .model", "random")
        assert any("loading random" in text for text in await page.evaluate("() => seen"))
        await select.select_option("embedded")
        await ask(page, "Count from 3 to 9")
        await wait_for_text(page, f"{FIGURES} .model", "embedded")
    await provider.aclose()
