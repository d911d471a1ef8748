"""The room with many streams at once."""

import asyncio
import itertools

import pytest

from provider.interface import GenerationError
from provider.scripted import Fail, Gate, Prefill, Queue, Say, ScriptedProvider
from tests.support.servers import eventually, running
from tests.web_demo.conftest import LISTEN, scripted_gateway, wait_for_text

HOSTILE = "<img src=x onerror='document.title = 1'> "


def in_state(page, state):
    return page.locator(f".tile[data-state={state}]")


async def count_of(page, state, count):
    await page.wait_for_function(
        """([state, count]) =>
            document.querySelectorAll(`.tile[data-state=${state}]`).length === count""",
        arg=[state, count],
    )


@pytest.mark.browser
async def test_a_wall_shows_what_each_of_its_streams_does_and_stops_any_of_them(new_page):
    read, wrote = asyncio.Event(), asyncio.Event()
    script = [
        Queue(3),
        Prefill(0, 60),
        Gate(read),
        Prefill(30, 60),
        Gate(wrote),
        Say(HOSTILE),
        Gate(asyncio.Event()),
    ]
    async with scripted_gateway(*script) as gateway:
        provider = gateway.provider
        page = await new_page(f"{gateway.url}#wall/8")
        await count_of(page, "idle", 8)
        assert not await page.locator("#settings-button").is_visible(), "they are the chat's"
        await page.get_by_role("button", name="Start 8").click()
        await count_of(page, "reading", 8)
        widths = "() => [...document.querySelectorAll('.tile-bar')].map((bar) => bar.style.width)"
        assert set(await page.evaluate(widths)) == {"0%"}
        read.set()
        await page.wait_for_function(
            "() => [...document.querySelectorAll('.tile-bar')]"
            ".every((bar) => bar.style.width === '50%')"
        )
        await wait_for_text(page, ".wall-said", "8 reading")
        wrote.set()
        await count_of(page, "writing", 8)
        await page.wait_for_function(
            "(text) => [...document.querySelectorAll('.tile-text')]"
            ".every(({ textContent }) => textContent === text)",
            arg=HOSTILE,
        )
        await wait_for_text(page, ".wall-said", "8 writing")
        assert await page.locator(".cell[data-state=writing]").count() == 8
        assert await page.title() == "mlx-gateway"

        await page.locator(".tile").nth(2).click()
        await count_of(page, "stopped", 1)
        await wait_for_text(page, ".tile[data-state=stopped] .tile-state", "stopped in ")
        await eventually(lambda: len(provider.live) == 7)
        await page.keyboard.press("ArrowLeft")
        await page.keyboard.press("Enter")
        await count_of(page, "stopped", 2)
        await page.keyboard.press("ArrowDown")  # to the last row, whatever the columns are
        await page.keyboard.press("End")
        await page.keyboard.press("s")
        await count_of(page, "slow", 1)
        await page.keyboard.press("s")
        await count_of(page, "writing", 6)
        assert not await page.locator("#drawer").is_visible()  # `s` was the tile's alone
        await page.get_by_role("button", name="Stop all").click()
        await count_of(page, "stopped", 8)
        await eventually(lambda: not provider.live)
        await page.get_by_role("button", name="Start 8").wait_for()


@pytest.mark.browser
async def test_a_wall_that_fails_says_why_and_comes_to_rest(new_page):
    error = GenerationError("the model is out of breath")
    async with scripted_gateway(Say("So far"), Fail(error)) as gateway:
        page = await new_page(f"{gateway.url}#wall/8")
        await page.evaluate(LISTEN)
        await page.get_by_role("button", name="Start 8").click()
        await count_of(page, "failed", 8)
        await wait_for_text(page, ".wall-news", "Failed: the model is out of breath")
        assert await page.locator(".tile-act").first.get_attribute("title") == str(error)
        await page.wait_for_function("() => heard.at(-1) === 'All have ended: 8 failed.'")
        await (
            page.locator(".wall-figure b").first.and_(page.get_by_text("0", exact=True)).wait_for()
        )


@pytest.mark.browser
async def test_a_wall_of_64_begins_by_its_address_and_its_queue_counts_down(new_page):
    asked = itertools.count(-31)
    place, end = asyncio.Event(), asyncio.Event()

    def script(_):
        queue = [Queue(at), Gate(place)] if (at := next(asked)) > 0 else []
        return [*queue, Say("A story."), Gate(end)]

    async with scripted_gateway(script=script) as gateway:
        page = await new_page(f"{gateway.url}#wall/64/start")
        await in_state(page, "queued").get_by_text("queue 32").wait_for()
        await wait_for_text(page, ".wall-said", "32 writing · 32 queued")
        places = await in_state(page, "queued").locator(".tile-state").all_text_contents()
        assert sorted(places) == sorted(f"queue {at}" for at in range(1, 33))
        assert await page.locator(".cell").count() == 64
        boxes = await page.evaluate(
            """() => [...document.querySelectorAll(".tile")]
                .map((tile) => tile.getBoundingClientRect().bottom)"""
        )
        assert max(boxes) <= 800, "they are not all seen at once"
        place.set()
        await count_of(page, "writing", 64)
        end.set()
        await count_of(page, "done", 64)
        await page.get_by_role("button", name="Start 64").wait_for()
        assert len(gateway.provider.requests) == 64


async def middle_of(locator):
    box = await locator.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


@pytest.mark.browser
async def test_a_tile_is_dragged_to_a_slow_reader_and_the_others_go_on(new_page):
    async with scripted_gateway(Say("word " * 6000), tokens_per_second=20) as gateway:
        page = await new_page(f"{gateway.url}#wall/8/start")
        # No tile has a rate yet, with which the others' speed could be compared.
        await wait_for_text(page, ".wall-said", "8 writing")
        place = page.locator(".wall-slowing")
        assert not await place.is_visible()
        await page.mouse.move(*await middle_of(page.locator(".tile").nth(2)))
        await page.mouse.down()
        await page.mouse.move(*await middle_of(page.locator(".tile").nth(5)), steps=3)
        await page.mouse.move(*await middle_of(place), steps=3)
        await page.locator(".wall-slowing[data-over]").wait_for()
        await page.mouse.up()
        await count_of(page, "slow", 1)
        await page.locator(".tile:nth-child(3)[data-state=slow]").wait_for()
        assert not await place.is_visible()
        await page.wait_for_function(
            r"() => /^\d+\.\d\d/.test(document.querySelector('.others b')?.textContent)"
        )
        await wait_for_text(page, ".wall-said", "7 writing · 1 read slowly")
        await page.locator(".tile").nth(0).click()  # a click is none of that
        await count_of(page, "stopped", 1)
        await page.keyboard.press("Escape")


class Busy(ScriptedProvider):
    """Begins five answers, and ends them, and begins others, once there is a place."""

    def __init__(self):
        self.asked = 0
        self.place = asyncio.Event()
        script = [Say("word " * 20), Gate(self.place), Say("word " * 20)]
        super().__init__(script=script, tokens_per_second=60)

    async def generate_async(self, *arguments, **options):
        self.asked += 1
        if self.asked > 5:
            await self.place.wait()
        return await super().generate_async(*arguments, **options)


@pytest.mark.browser
async def test_a_wall_whose_plug_is_pulled_loses_nothing(new_page):
    provider = Busy()
    async with running(provider) as gateway:
        page = await new_page(f"{gateway.url}#wall/8/start")
        await count_of(page, "writing", 5)
        await page.keyboard.press("p")
        said = "5 resumed, 3 that had not begun asked again, 0 lost"
        await wait_for_text(page, ".wall-news", said)
        provider.place.set()
        provider.tokens_per_second = 1000
        await count_of(page, "done", 8)
        assert set(await page.locator(".tile-text").all_text_contents()) == {"word " * 40}
        assert (provider.asked, len(provider.requests)) == (11, 8)
        # Nothing is painted any more, and another room is not disturbed.
        await page.get_by_role("link", name="Chat").click()
        await page.get_by_label("Message", exact=True).wait_for()
        assert not await page.locator(".tiles").is_visible()


@pytest.mark.browser
async def test_stories_that_are_begun_anew_take_the_place_of_those_that_ran(new_page):
    asked = itertools.count()

    def script(_):
        return [Say("First. " if next(asked) < 8 else "Second. "), Gate(asyncio.Event())]

    async with scripted_gateway(script=script, max_generations=8) as gateway:
        page = await new_page(f"{gateway.url}#wall/8/start")
        await wait_for_text(page, ".wall-said", "8 writing")
        await page.keyboard.press("b")
        await page.wait_for_function(
            "() => [...document.querySelectorAll('.tile-text')]"
            ".every(({ textContent }) => textContent === 'Second. ')"
        )
        await eventually(lambda: len(gateway.provider.live) == 8)
        assert len(gateway.provider.requests) == 16
        await page.keyboard.press("Escape")
        await count_of(page, "stopped", 8)
        await eventually(lambda: not gateway.provider.live)


# Returns the milliseconds between changes of a tile's text.
GAPS = """(times) => new Promise((done) => {
    const seen = [];
    const watch = new MutationObserver(() => {
        seen.push(performance.now());
        if (seen.length <= times) return;
        watch.disconnect();
        done(seen.slice(1).map((at, index) => at - seen[index]));
    });
    const tile = document.querySelector(".tile-text");
    watch.observe(tile, { characterData: true, childList: true, subtree: true });
})"""
LEAST_MS = 80  # of the 100 between two, without what others take in a frame


@pytest.mark.browser
async def test_words_come_to_a_tile_several_at_a_time_and_a_new_state_at_once(new_page):
    text = "Once more. " * 400
    async with scripted_gateway(Say(text), tokens_per_second=300) as gateway:
        page = await new_page(f"{gateway.url}#wall/8/start")
        await count_of(page, "writing", 8)
        assert min(await page.evaluate(GAPS, 8)) > LEAST_MS
        await page.keyboard.press("Escape")
        await count_of(page, "stopped", 8)
        shown = await page.locator(".tile-text").first.text_content()
        await page.evaluate("() => new Promise(requestAnimationFrame)")
        assert await page.locator(".tile-text").first.text_content() == shown
