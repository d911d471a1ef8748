"""Record the tape that the page's Tape room has: `make sample-tape`.

Eight stories of the embedded model on one connection; one of them is stopped, as a visitor would.
"""

import asyncio

from gateway.server.pages import web_root
from provider import MLXProvider
from tests.support.browser import chromium
from tests.support.servers import running

STORIES = 8
MOST_TOKENS = 160
STOPPED = 5  # which one
STOPPED_AFTER = 60  # pieces of its text

RECORD = """async ([stories, most, stopped, after]) => {
    const [{ connect }, { recorded, toText }, { storyOf }] = await Promise.all(
        ["/client.js", "/tapes/tape.js", "/wall/stories.js"].map((path) => import(path)));
    const passed = [];
    const onframe = (frame, way) => {
        if (frame.type !== "ready" && frame.type !== "hello" && frame.type !== "ack")
            passed.push({ at: performance.now(), way, text: JSON.stringify(frame) });
    };
    const client = connect(undefined, { onframe });
    await client.ready;
    await Promise.all(Array.from({ length: stories }, async (_, index) => {
        const messages = [{ role: "user", content: storyOf(index, "").prompt }];
        const asked = { id: `${index + 1}`, messages, max_tokens: most, seed: index };
        const run = client.generate(asked);
        let pieces = 0;
        for await (const chunk of run) if (++pieces === after && index === stopped) run.cancel();
        return run.result;
    }));
    client.close();
    const title = `${stories} stories of the built-in model, one of them stopped`;
    return toText(recorded(passed, title));
}"""


async def record():
    """Return the text of a tape."""
    provider = MLXProvider()
    await provider.load()
    async with chromium() as browser, running(provider) as gateway:
        page = await browser.new_page()
        await page.goto(gateway.url)
        text = await page.evaluate(RECORD, [STORIES, MOST_TOKENS, STOPPED, STOPPED_AFTER])
    await provider.aclose()
    return text


if __name__ == "__main__":
    (web_root() / "tapes" / "sample.json").write_text(asyncio.run(record()))
