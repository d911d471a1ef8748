"""The page's sockets: in a thread of their own, which passes several pieces of text at once."""

import pytest

from provider.scripted import Say
from tests.web_demo.conftest import scripted_gateway

pytestmark = pytest.mark.browser

# The kinds of the frames that the thread passes together, until the end of an answer.
PASSED = """(every) => new Promise((done, fail) => {
    const thread = new Worker("/shell/socket_worker.js");
    const passed = [];
    const order = (...parts) => thread.postMessage([1, ...parts]);
    thread.onerror = fail;
    thread.onmessage = ({ data: [id, what, first, second] }) => {
        if (what === "open") order("send", JSON.stringify(
            { type: "generate", id: "g", messages: [{ role: "user", content: "Hi" }] }));
        if (what === "frames") {
            if (first.length !== second.length) fail(second);
            passed.push(first.map((text) => JSON.parse(text).type));
            if (passed.at(-1).includes("done")) order("close", 4000, "enough");
        }
        if (what === "close") done([...passed, [first, second]]);
    };
    order("every", every);
    order("open", location.origin.replace("http", "ws") + "/v1/stream", ["mlx-gateway.v1.json"]);
})"""


async def test_text_is_passed_together_and_all_else_at_once(blank_page):
    async with scripted_gateway(Say("word " * 50)) as gateway:
        page = await blank_page(gateway)
        *before, first, rest, closed = await page.evaluate(PASSED, 1e6)
    assert [kind for frames in before for kind in frames] == ["ready", "started"]
    assert first == ["chunk"], "nobody waits for the first word"
    assert rest[-1] == "done"
    assert set(rest[:-1]) <= {"chunk"}
    assert closed == [4000, "enough"]


# When the events of an answer came, as its reader is told; its frames come every 10 ms.
TIMES = """async () => {
    const [{ connect }, { PageSocket }] =
        await Promise.all([import("/client.js"), import("/shell/socket.js")]);
    let at = 0;
    class Paced extends PageSocket {
        take(texts, times) {
            return super.take(texts, times.map(() => performance.timeOrigin + (at += 10)));
        }
    }
    const client = connect(undefined, { WebSocket: Paced });
    const seen = [];
    for await (const { type, at } of client.generate({ prompt: "Hi" }).events()) {
        await new Promise((resolve) => setTimeout(resolve)); // a reader may take its time
        seen.push([type, Math.round(at)]);
    }
    client.close();
    return seen;
}"""


async def test_frames_that_are_passed_together_keep_the_times_when_they_came(blank_page):
    async with scripted_gateway(Say("word " * 50)) as gateway:
        seen = await (await blank_page(gateway)).evaluate(TIMES)
    kinds, times = zip(*seen, strict=True)
    assert {*kinds} == {"progress", "text", "done"}
    assert [*times] == [20 + 10 * index for index in range(len(times))]  # 10 is that of `ready`


async def test_a_thread_that_could_not_be_loaded_is_tried_again(new_page):
    async with scripted_gateway(Say("x")) as gateway:
        page = await new_page(f"{gateway.url}healthz", ready=False)
        await page.route("**/shell/socket_worker.js", lambda route: route.abort())
        await page.goto(gateway.url)
        await page.locator('#state[data-state="waiting"]').wait_for()
        await page.unroute("**/shell/socket_worker.js")
        await page.locator('#state[data-state="open"]').wait_for()
