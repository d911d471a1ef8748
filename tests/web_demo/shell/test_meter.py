"""The meter in the header, and the counts that it shows."""

import asyncio

import pytest

from provider.scripted import Say
from tests.support.timeouts import TIMEOUT
from tests.web_demo.conftest import ask, in_node, scripted_gateway, wait_for_text, wants_node

ROOMS = ("chat", "race", "wall", "tape")


@pytest.mark.browser
async def test_every_room_shows_how_fast_text_comes_and_what_runs(new_page):
    async with scripted_gateway(Say("word " * 3000), tokens_per_second=20) as gateway:
        page = await new_page(gateway.url)
        rate, answers = page.locator("#meter b"), page.locator(".meter-answers")
        assert await answers.text_content() == "idle"
        await ask(page, "Hi")
        await wait_for_text(page, ".meter-answers", "1 answer here")
        for room in ROOMS:
            await page.evaluate("(room) => { location.hash = room; }", room)
            await page.locator(f"#room-{room}:visible").wait_for()
            assert await page.locator("#meter").is_visible()
        await page.wait_for_function(
            "() => Number(document.querySelector('#meter b').textContent) > 0"
        )
        await page.evaluate("() => { location.hash = 'wall/8/start'; }")
        await wait_for_text(page, ".meter-answers", "9 answers here")
        await page.keyboard.press("Escape")
        await wait_for_text(page, ".meter-answers", "1 answer here")
        await page.evaluate("() => { location.hash = 'chat'; }")
        await page.locator("#room-chat:visible").wait_for()
        await page.keyboard.press("Escape")
        await wait_for_text(page, ".meter-answers", "idle")
        await page.locator("#meter:not([data-live])").wait_for()
        assert await rate.text_content() == "0"

        # At rest, nothing is planned any more; while an answer comes, it is.
        await page.evaluate(
            """() => {
                const begin = globalThis.requestAnimationFrame;
                globalThis.requestAnimationFrame = (does) => {
                    globalThis.planned += 1;
                    return begin(does);
                };
            }"""
        )
        planned = """() => {
            globalThis.planned = 0;
            return new Promise((resolve) => setTimeout(() => resolve(globalThis.planned), 500));
        }"""
        async with asyncio.timeout(TIMEOUT):
            while await page.evaluate(planned):  # on a busy machine it comes to rest later
                pass
        await ask(page, "Again")
        await page.wait_for_function("() => globalThis.planned > 0")


@wants_node
async def test_a_connection_counts_its_answers_and_their_pieces():
    said = await in_node(
        "shell/traffic.js",
        """
        const traffic = m.createTraffic();
        const seen = [];
        let begun = 0;
        traffic.watch(() => (begun += 1));
        const note = () => seen.push([traffic.running, traffic.queued, traffic.pieces]);
        const sent = (frame) => (traffic.sent(JSON.stringify(frame)), note());
        const received = (frame) => (traffic.received(JSON.stringify(frame)), note());
        sent({ type: "generate", messages: [{ role: "user", content: '"id":"x"' }], id: "a" });
        sent({ type: "generate", prompt: "b", id: "b" });
        sent({ type: "ack", id: "c", seq: 1 });
        received({ type: "queued", id: "b", position: 1 });
        received({ type: "started", id: "a", seq: 0 });
        received({ type: "chunk", id: "a", seq: 1, text: "one" });
        received({ type: "chunk", id: "a", seq: 2, text: '{"type":"done","id":"a"}' });
        received({ type: "done", id: "a", seq: 3 });
        received({ type: "error", id: "b", code: "overloaded" });
        received({ type: "pong" });
        sent({ type: "resume", id: "d", ticket: "t" });
        traffic.closed();
        note();
        console.log(JSON.stringify([seen, begun]));
        """,
    )
    seen, begun = said
    assert begun == 3
    assert seen == [
        [1, 1, 0],
        [2, 2, 0],
        [2, 2, 0],
        [2, 2, 0],
        [2, 1, 0],
        [2, 1, 1],
        [2, 1, 2],
        [1, 1, 2],
        [0, 0, 2],
        [0, 0, 2],
        [1, 0, 2],
        [0, 0, 2],
    ]


@wants_node
async def test_a_rate_is_of_what_was_counted_lately():
    rates = await in_node(
        "shell/rate.js",
        """
        const rate = m.createRate(1000);
        const rates = [rate.rate(0)];
        for (let at = 100; at <= 3000; at += 100) {
            rate.add(at <= 2000 ? 5 : 10);
            rates.push(rate.rate(at));
        }
        rate.pause();
        rates.push(rate.rate(9000), rate.total);
        console.log(JSON.stringify(rates));
        """,
    )
    assert rates[0] == 0
    assert rates[20] == 50  # 5 in each tenth of a second
    assert 90 < rates[30] <= 100
    assert rates[-2:] == [0, 200]
