"""Tapes: sessions that are played back, from files and links that anybody may have made."""

import functools
import gzip
import http.server
import json
import threading
from contextlib import contextmanager

import pytest

from gateway.server.pages import web_root
from provider.scripted import Say
from tests.web_demo.conftest import answered, in_node, scripted_gateway, wait_for_text, wants_node
from tests.web_demo.hostile import HOSTILE

USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}


def frame_at(at, way, **frame):
    return [at, way, frame]


def tape_of(texts):
    frames = []
    for number, text in enumerate(texts):
        chosen = {"id": f"{number} {text}"[:64]}
        question = {"messages": [{"role": "user", "content": text}]}
        frames += [
            frame_at(0, "out", type="generate", **chosen, **question),
            frame_at(5, "in", type="queued", **chosen, position=number),
            frame_at(
                6,
                "in",
                type="started",
                **chosen,
                seq=0,
                model=text,
                prompt_tokens=3,
                cached_tokens=1,
            ),
            frame_at(10, "in", type="chunk", **chosen, seq=1, text=text),
        ]
        end = {"seq": 2, "usage": USAGE, "timing": {"tokens_per_second": 9}}
        if number % 2:
            frames.append(frame_at(30, "in", type="done", **chosen, finish_reason="stop", **end))
        else:
            frames.append(
                frame_at(30, "in", type="error", **chosen, seq=2, code=text, message=text)
            )
    made = {"format": "mlx-gateway.tape", "version": 1, "title": texts[0]}
    return json.dumps({**made, "frames": frames})


@contextmanager
def plain_files(folder):
    """Serve a folder as it is: no gateway."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.mark.browser
async def test_a_session_is_recorded_and_its_link_plays_without_a_gateway(new_page):
    async with scripted_gateway(Say("one two three")) as gateway:
        page = await new_page(gateway.url)
        await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        await page.get_by_role("button", name="Wire", exact=True).click()
        await answered(page, "Count for me")
        await page.get_by_role("button", name="Replay").click()
        await wait_for_text(page, ".tapes .tile[data-state=done] .tile-text", "one two three")
        assert await page.locator(".tapes .tile-title").text_content() == "Count for me"
        await wait_for_text(page, ".wire-row .wire-type", "done")
        assert await page.locator(".wire-row:visible .wire-time").first.text_content() == "0.000"
        await page.get_by_role("button", name="Copy link").click()
        await page.get_by_role("button", name="Copied").wait_for()
        link = await page.evaluate("() => navigator.clipboard.readText()")
    assert "ticket" not in link
    with plain_files(web_root()) as url:
        page = await new_page(f"{url}#{link.partition('#')[2]}", ready=False)
        await wait_for_text(page, ".tapes .tile[data-state=done] .tile-text", "one two three")
        await page.get_by_label("Time", exact=True).fill("0")
        await page.locator(".tapes .tile[data-state=done]").wait_for(state="detached")
        await page.get_by_role("button", name="Play").click()
        await page.locator(".tapes .tile[data-state=done]").wait_for()


@pytest.mark.browser
async def test_what_was_recorded_plays_after_the_gateway_has_gone(new_page):
    async with scripted_gateway(Say("one two three")) as gateway:
        page = await new_page(gateway.url)
        await page.get_by_role("button", name="Wire", exact=True).click()
        await answered(page, "Count for me")
        # The room of tapes was never opened; what it needs was loaded while the page was idle.
        await page.wait_for_function(
            """() => ["/tapes.css", "/wall.css"].every((name) =>
                [...document.styleSheets].some(({ href }) => href?.endsWith(name)))"""
        )
    await page.locator('#state:not([data-state="open"])').wait_for()
    await page.get_by_role("button", name="Replay").click()
    await wait_for_text(page, ".tapes .tile[data-state=done] .tile-text", "one two three")
    tile = page.locator(".tapes .tile")
    assert await tile.evaluate("(tile) => getComputedStyle(tile).containerType") == "size"


@pytest.mark.browser
async def test_what_is_on_a_tape_is_text_and_never_markup(new_page, tmp_path):
    path = tmp_path / "hostile.json"
    path.write_text(tape_of(HOSTILE))
    async with scripted_gateway(Say("x")) as gateway:
        page = await new_page(f"{gateway.url}#tape")
        await page.locator(".tapes .tile").nth(7).wait_for()  # of the package's own tape
        elsewhere = []
        page.on("request", lambda request: elsewhere.append(request.url))
        await page.get_by_role("button", name="Wire", exact=True).click()
        await page.locator(".wire-list").wait_for()
        tags = "() => [...document.querySelectorAll('*')].map(({tagName}) => tagName)"
        before = set(await page.evaluate(tags))
        elsewhere.clear()
        await page.locator(".tapes input[type=file]").set_input_files(path)
        await page.locator(".tapes .tile[data-state=done]").nth(len(HOSTILE) // 2 - 1).wait_for()
        await page.locator(".tapes .tile[data-state=failed]").nth(len(HOSTILE) // 2 - 1).wait_for()
        assert await page.locator(".tile-text").all_text_contents() == HOSTILE
        await page.get_by_label("Time", exact=True).fill("5")
        await page.locator(".tapes .tile[data-state=queued]").nth(len(HOSTILE) - 1).wait_for()
        assert await page.locator(".tile-state").nth(3).text_content() == "queue 3"
        await page.locator(".wire-row").first.click()
        assert set(await page.evaluate(tags)) - before <= {"PRE", "STRONG", "B", "I"}
        assert await page.title() == "mlx-gateway"
        assert elsewhere == []
        assert await page.evaluate("() => [].name === undefined && {}.name === undefined")


@wants_node
async def test_a_tape_is_read_as_it_was_written_and_a_damaged_one_says_so():
    good = {"format": "mlx-gateway.tape", "version": 1, "title": "t", "frames": []}
    chunk = {"type": "chunk", "id": "a", "seq": 1, "text": "x"}
    bad = [
        "{",
        json.dumps({"format": "else"}),
        json.dumps({**good, "version": 2}),
        *(
            json.dumps({**good, "frames": [frame]})
            for frame in (
                [0, "in"],
                [-1, "in", chunk],
                [0, "both", chunk],
                [0, "in", None],
                [0, "in", {**chunk, "seq": "__proto__"}],
                [0, "in", {**chunk, "text": {}}],
                [0, "in", {**chunk, "type": "done", "tool_calls": 5}],
                [0, "closed", {}],
            )
        ),
    ]
    said = await in_node(
        "tapes/tape.js",
        f"""
        const passed = [
            {{at: 50, way: "opened", text: "p"}},
            {{at: 60.04, way: "out", text: '{{"type":"generate","id":"a","prompt":"Hi"}}'}},
            {{at: 70, way: "in", text: '{{"type":"started","id":"a","seq":0,"ticket":"secret"}}'}},
        ];
        const tape = m.recorded(passed, "A tape");
        const back = m.fromText(m.toText(tape));
        const link = await m.toLink(tape);
        const linked = await m.fromLink(link);
        const wrong = (read) => read().then(() => "", (error) => error.message);
        const text = (one) => JSON.stringify(one);
        console.log(JSON.stringify([
            tape,
            text(back) === text(tape),
            text(linked) === text(tape),
            m.askedIn(tape),
            m.lengthOf(tape),
            await wrong(() => m.fromLink(link.slice(0, -9))),
            await wrong(() => m.fromLink("%")),
            await Promise.all({json.dumps(bad)}.map((text) => wrong(async () => m.fromText(text)))),
            link.length < 200,
            m.askedIn({{frames: [[0, "in", {{type: "chunk", id: "vpmve1b8-28", seq: 9}}]]}}),
        ]));
        """,
    )
    tape, same, linked, asked, length, cut, nonsense, wrong, short, begun_before = said
    assert tape["frames"] == [
        [0, "opened", "p"],
        [10, "out", {"type": "generate", "id": "a", "prompt": "Hi"}],
        [20, "in", {"type": "started", "id": "a", "seq": 0}],
    ]
    assert (same, linked, short) == (True, True, True)
    assert asked == [{"id": "a", "title": "Hi"}]
    assert begun_before == [{"id": "vpmve1b8-28", "title": "Answer 28"}]
    assert length == 20
    assert "link is damaged" in cut
    assert "link is damaged" in nonsense
    assert wrong[:3] == [
        "this file is no tape: it is not JSON",
        "this file is no tape",
        "this tape was made by another version of this page",
    ]
    assert set(wrong[3:]) == {"this tape is damaged"}


@pytest.mark.browser
async def test_at_a_first_visit_the_tape_of_the_package_plays_without_a_gateway(new_page, tmp_path):
    mine = tmp_path / "mine.json"
    mine.write_text(tape_of(["mine", "yours"]))
    with plain_files(web_root()) as url:
        page = await new_page(f"{url}#tape", ready=False)
        tiles = page.locator(".tapes .tile")
        await tiles.nth(7).wait_for()
        assert await page.locator(".tape-about p").is_visible(), "what a tape is"
        await page.get_by_label("Time", exact=True).fill("1000000")
        await page.locator(".tapes .tile[data-state=done]").nth(6).wait_for()
        await page.locator(".tapes .tile[data-state=stopped]").wait_for()
        assert min(map(len, await page.locator(".tile-text").all_text_contents())) > 100
        await page.locator(".tapes input[type=file]").set_input_files(mine)
        await page.locator(".tile-title", has_text="mine").wait_for()
        assert await tiles.count() == 2
        assert not await page.locator(".tape-about").is_visible()


def test_the_tape_of_the_package_is_small_and_has_no_secret():
    text = (web_root() / "tapes" / "sample.json").read_text()
    assert len(gzip.compress(text.encode())) < 20_000
    kinds = {frame["type"] for _, _, frame in json.loads(text)["frames"]}
    assert kinds <= {"generate", "cancel", "queued", "started", "progress", "chunk", "done"}
    assert "ticket" not in text
