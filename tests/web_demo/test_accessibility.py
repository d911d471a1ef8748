"""axe-core finds nothing against WCAG AA in the states of the page, light and dark."""

import asyncio
import hashlib
import importlib.util
import json
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path

import pytest

from gateway.server.tokens import Token, Tokens
from provider.interface import GenerationError
from provider.scripted import Call, Fail, Gate, Reason, Say, ScriptedProvider
from tests.support.servers import running
from tests.web_demo.conftest import (
    answered,
    ask,
    scripted_gateway,
    settings_of,
    wait_for_text,
)

PACKAGE = importlib.util.find_spec("axe_playwright_python")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(PACKAGE is None, reason="axe-core is not installed"),
]

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
MARKDOWN = """# Title

Some **bold** text with `code`, a [link](https://a.example) and a list:

- [x] done
- 1, 2, 3

| a | b |
|---|--:|
| 1 | 2 |

```python
def add(one, two):  # the sum
    return one + two + 3 + "four"
```

> Said by somebody, and $$x^2$$.
"""


@cache
def axe():
    return Path(PACKAGE.origin).with_name("axe.min.js").read_text("utf-8")


async def violations(page):
    """Return what axe finds: the rule, and the elements."""
    if not await page.evaluate("() => 'axe' in globalThis"):
        await page.evaluate(axe())
    found = await page.evaluate(
        """async (values) => {
            const moving = () => document.getAnimations().filter((one) =>
                one.playState === "running" && one.effect.getComputedTiming().endTime < Infinity);
            await Promise.all(moving().map((one) => one.finished.catch(() => {})));
            const { violations } = await axe.run(document, { runOnly: { type: "tag", values } });
            return violations.map(({ id, nodes }) =>
                [id, nodes.slice(0, 4).map(({ target, failureSummary }) =>
                    `${target}: ${failureSummary.split("\\n")[1]}`)]);
        }""",
        RULES,
    )
    return dict(found)


class Script:
    """Answers by what is asked: Markdown, thinking, a call, a failure, or half of something."""

    def __init__(self):
        self.gate = asyncio.Event()

    def __call__(self, request):
        match request.last_user_text:
            case "think":
                return [Reason("Well. " * 9), Say("Yes.")]
            case "call":
                return [Say("See: "), Call("get_weather", {"city": "Ulm"})]
            case "fail":
                return [Say("So far"), Fail(GenerationError("out of breath"))]
            case "half":
                return [Say("Half of "), Gate(self.gate)]
            case "odds":
                return [Say("Some words that are **marked** well.", top_logprobs=3)]
            case _:
                return [Say(MARKDOWN)]


@asynccontextmanager
async def page_of(new_page, **options):
    script = Script()
    async with running(ScriptedProvider(script=script, tokens_per_second=None)) as gateway:
        page = await new_page(gateway.url, **options)
        await page.locator(".card").first.wait_for()
        yield page, script


async def usual_states(page):
    """Go through the states that most people see; yield their names."""
    yield "first visit"
    await page.locator("#settings-button").click()
    await page.locator("#settings .field").first.wait_for()
    await page.get_by_text("Fine tuning").click()
    await page.get_by_label("Longest answer").fill("-1")
    yield "settings, with a wrong one"
    await page.get_by_role("button", name="Creative").click()
    await page.get_by_label("Show how sure it was").check()
    await page.locator("#settings-button").click()
    await answered(page, "odds")
    await page.locator(".text[tabindex='0']").focus()
    await page.keyboard.press("ArrowRight")
    yield "odds, chips"
    await page.locator(".scroll").focus()
    await page.keyboard.press("?")
    await page.locator("#keys[open]").wait_for()  # its module is loaded when it is asked for
    yield "keys"
    await page.keyboard.press("Escape")
    await page.keyboard.press("Control+k")
    await page.locator("#palette[open]").wait_for()
    yield "palette"
    await page.keyboard.press("Escape")
    await page.get_by_role("button", name="Take back: How sure").click()


async def other_states(page, script):
    await answered(page, "markdown")
    await page.get_by_role("button", name="Regenerate").last.click()
    await page.locator(".version").first.wait_for()
    yield "Markdown, versions"
    for panel in ("Share", "Code"):
        await page.get_by_role("button", name=panel, exact=True).last.click()
        await page.get_by_role("group", name=panel, exact=True).wait_for()
        yield f"panel: {panel}"
        await page.get_by_role("button", name=f"Close {panel}").click()
    await answered(page, "think")
    await page.locator(".reasoning summary").last.click()
    yield "thinking"
    await answered(page, "fail")
    yield "an error"
    await ask(page, "half")
    await wait_for_text(page, ".text", "Half of")
    await ask(page, "and then")
    yield "streaming, with a message that waits"
    script.gate.set()
    await page.locator(".assistant:not(.streaming)").last.wait_for()
    await page.locator(".asked").last.hover()
    await page.get_by_role("button", name="Edit").last.click()
    yield "editing"
    await page.keyboard.press("Escape")
    async with settings_of(page) as settings:
        await settings.get_by_label("Answers to choose from").select_option("3")
    await answered(page, "several")
    yield "several answers"
    async with settings_of(page) as settings:
        await settings.get_by_label("Calls that you answer by hand").fill('{"name": "get_weather"}')
    await ask(page, "call")
    await page.get_by_label("What the tool returns").wait_for()
    yield "a call that waits for a person"
    await page.keyboard.press("Escape")
    await page.locator(".talks li").first.hover()
    await page.get_by_role("button", name="Rename").first.click()
    yield "renaming"
    await page.keyboard.press("Escape")
    for drawer in ("wire", "engine"):
        await page.locator(f"#{drawer}-button").click()
        await page.locator(f"#{drawer} .drawer-inside > *").first.wait_for()
        yield f"drawer: {drawer}"
        await page.locator(f"#{drawer}-button").click()
    for room in ("race", "wall", "tape"):
        await page.evaluate("(room) => { location.hash = room; }", room)
        await page.locator(f"#room-{room}:visible").wait_for()
        yield f"room: {room}"


async def busy_states(page):
    """Go through the rooms and drawers while something happens in them."""
    await page.evaluate("() => { location.hash = 'wall/8'; }")
    await page.get_by_label("Prompt for every tile").fill("half")
    await page.locator("#wire-button").click()
    await page.locator(".wire-empty").wait_for()
    await page.get_by_role("button", name="Start 8").click()
    await page.locator(".tile[data-state=writing]").nth(7).wait_for()
    await page.locator(".tile-act").nth(1).click()
    await page.locator("#room-wall .tile[data-state=stopped]").wait_for()
    await page.locator(".tile-act").nth(2).press("s")
    await page.locator("#room-wall .tile[data-state=slow]").wait_for()
    yield "a wall of streams, and their frames"
    await page.locator(".wire-row:visible").last.click()
    yield "a frame"
    await page.get_by_role("button", name="Code", exact=True).click()
    yield "a program"
    await page.get_by_role("button", name="Replay").click()
    await page.locator("#room-tape .tile[data-state=writing]").first.wait_for()
    yield "a tape"
    await page.locator("#wire-button").click()
    await page.evaluate("() => { location.hash = 'race/markdown'; }")
    await page.get_by_role("button", name="Race", exact=True).click()
    await page.locator(".lane[data-state=done]").nth(2).wait_for()
    yield "a race that has ended"
    await page.evaluate("() => { location.hash = 'race'; }")
    await page.get_by_label("Prompt for all lanes").fill("fail")
    await page.get_by_role("button", name="Race", exact=True).click()
    await page.locator(".lane[data-state=failed]").nth(2).wait_for()
    yield "a race that has failed"
    await page.evaluate("() => { location.hash = 'wall'; }")
    await page.get_by_role("button", name="Stop all").click()
    await page.get_by_label("Prompt for every tile").fill("fail")
    await page.get_by_role("button", name="Start 8").click()
    await page.locator(".tile[data-state=failed]").nth(7).wait_for()
    yield "a wall that has failed"
    await page.evaluate("() => { location.hash = 'tape'; }")
    damaged = {"name": "a.json", "mimeType": "application/json", "buffer": b"{"}
    await page.locator(".tapes input[type=file]").set_input_files(damaged)
    await wait_for_text(page, ".tape-wrong", "Not played")
    yield "a tape that is none"


async def found_in(page, states):
    found = {}
    async for name in states:
        if wrong := await violations(page):
            found[name] = wrong
    return found


async def test_what_most_people_see_is_accessible(new_page):
    async with page_of(new_page) as (page, _):
        found = await found_in(page, usual_states(page))
    assert not found, json.dumps(found, indent=1)


@pytest.mark.slow("every state of the page, in both colours")
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_state_is_accessible_in_both_colours(new_page, scheme):
    async with page_of(new_page, color_scheme=scheme) as (page, script):
        found = await found_in(page, usual_states(page))
        found |= await found_in(page, other_states(page, script))
        script.gate.clear()
        found |= await found_in(page, busy_states(page))
    assert not found, json.dumps(found, indent=1)


async def test_nothing_moves_where_a_person_wants_that(new_page):
    wait = asyncio.Event()
    async with scripted_gateway(Say("word "), Gate(wait)) as gateway:
        page = await new_page(gateway.url, viewport={"width": 390, "height": 760})
        moving = """() => [
            getComputedStyle(document.querySelector(".drawer")).animationName,
            getComputedStyle(document.querySelector(".card")).transitionDuration,
            getComputedStyle(document.querySelector(".idle .text p"), "::after").animationName,
        ]"""
        await ask(page, "Hi")
        await page.locator(".streaming.idle .text p").wait_for()
        await page.locator("#settings-button").click()
        await page.locator("#settings .field").first.wait_for()
        assert await page.evaluate(moving) == ["rise", "0.12s, 0.12s", "pulse"]
        await page.emulate_media(reduced_motion="reduce")
        assert await page.evaluate(moving) == ["none", "0s", "none"]
        assert await page.evaluate("() => document.getAnimations().length") == 0


OUTSIDE = """() => {
    const shown = (one) => one.checkVisibility({ visibilityProperty: true });
    const apart = ".unseen, .bar h1, legend, .wall-choice input, [hidden] *";
    const scrolls = (one) => one && (["auto", "scroll"].includes(getComputedStyle(one).overflowX) ||
        scrolls(one.parentElement));
    return [...document.querySelectorAll("button, a, input, select, textarea, canvas, h2, h3, p")]
        .filter((one) => shown(one) && !one.matches(apart) && !scrolls(one.parentElement))
        .filter((one) => {
            const { left, right, width } = one.getBoundingClientRect();
            return width && (left < -1 || right > innerWidth + 1);
        })
        .map((one) => one.outerHTML.slice(0, 80));
}"""


async def test_every_room_and_drawer_fits_into_320_pixels(new_page):
    found = {}
    async with scripted_gateway(Say("word " * 30)) as gateway:
        page = await new_page(gateway.url, viewport={"width": 320, "height": 640})
        for room in ("chat", "race/Hi", "wall/8/start", "tape"):
            await page.evaluate("(room) => { location.hash = room; }", room)
            await page.locator(f"#room-{room.partition('/')[0]}:visible").wait_for()
            found[room] = await page.evaluate(OUTSIDE)
            assert await page.evaluate("document.documentElement.scrollWidth") <= 320, room
            if room == "wall/8/start":  # a wall that is hidden is not painted
                await page.locator(".tile[data-state=done]").nth(7).wait_for()
        await page.evaluate("() => { location.hash = 'chat'; }")
        for drawer in ("settings", "wire", "engine"):
            await page.locator(f"#{drawer}-button").click()
            await page.locator(f"#{drawer} .drawer-inside > *").first.wait_for()
            found[drawer] = await page.evaluate(OUTSIDE)
    assert not {name: wrong for name, wrong in found.items() if wrong}


async def phone_states(page):
    yield "first visit"
    await answered(page, "markdown")
    yield "an answer"
    await page.locator("#talks-button").click()
    yield "conversations"
    await page.keyboard.press("Escape")
    await page.locator("#settings-button").click()
    await page.locator("#settings .field").first.wait_for()
    yield "settings as a sheet"


@pytest.mark.slow("the same on a phone")
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_a_phone_is_accessible(new_page, scheme):
    small = {"viewport": {"width": 320, "height": 700}, "color_scheme": scheme}
    async with page_of(new_page, **small) as (page, _):
        found = await found_in(page, phone_states(page))
        assert await page.evaluate("document.documentElement.scrollWidth") <= 320
    assert not found, json.dumps(found, indent=1)


@pytest.mark.slow("the same on a page that is locked")
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_a_locked_page_is_accessible(new_page, scheme):
    tokens = Tokens([Token("alice", hashlib.sha256(b"sesame").hexdigest())])
    async with running(ScriptedProvider(tokens_per_second=None), tokens) as gateway:
        page = await new_page(gateway.url, ready=False, color_scheme=scheme)
        await page.locator("#door:visible").wait_for()
        await page.get_by_label("Token", exact=True).fill("wrong")
        await page.keyboard.press("Enter")
        await wait_for_text(page, "#door-reason", "This token is wrong")
        await page.keyboard.press("Escape")
        assert await page.locator("#door").is_visible()
        found = await violations(page)
    assert not found, json.dumps(found, indent=1)
