"""Measure the page's wall in a Chromium: `python -m tests.bench.wall [STREAMS] [RATE]`.

Prints frames a second, and how long the page's main thread works for each token, while so many
scripted streams of so many tokens a second are shown. Rendering is by software.
"""

import asyncio
import sys
from itertools import pairwise

from provider.scripted import Say, ScriptedProvider
from tests.support.browser import chromium
from tests.support.servers import running

SECONDS = 5
BEGIN_MS = 3000  # until all streams are written
TEXT = "The wolf waited until the moon was high and then everything was quiet. "
KINDS = ("Task", "Script", "Layout", "RecalcStyle")

FRAMES = """(seconds) => new Promise((done) => {
    const times = [];
    const next = (now) => {
        times.push(now);
        if (now - times[0] < 1000 * seconds) requestAnimationFrame(next);
        else done(times);
    };
    requestAnimationFrame(next);
})"""
SHOWN = """() => Number(
    [...document.querySelectorAll(".wall-figure")]
        .find(({ lastChild }) => lastChild.textContent === "tokens")
        .firstChild.textContent.replaceAll(",", ""))"""


async def durations(session):
    """Return what the main thread has done so far, in seconds."""
    metrics = (await session.send("Performance.getMetrics"))["metrics"]
    by_name = {one["name"]: one["value"] for one in metrics}
    return {kind: by_name[f"{kind}Duration"] for kind in KINDS}


async def main(streams=64, rate=20.0):
    provider = ScriptedProvider(script=[Say(TEXT * 60)], tokens_per_second=rate)
    async with chromium() as browser, running(provider) as gateway:
        page = await browser.new_page(viewport={"width": 1280, "height": 800})
        session = await page.context.new_cdp_session(page)
        await session.send("Performance.enable")
        await page.goto(f"{gateway.url}#wall/{streams}/start")
        await page.wait_for_timeout(BEGIN_MS)
        before, shown = await durations(session), await page.evaluate(SHOWN)
        times = await page.evaluate(FRAMES, SECONDS)
        after, tokens = await durations(session), await page.evaluate(SHOWN) - shown
    gaps = sorted(later - earlier for earlier, later in pairwise(times))
    seconds = (times[-1] - times[0]) / 1000
    print(f"{streams} streams, {tokens / seconds:.0f} tokens/s: {len(gaps) / seconds:.1f} frames/s")
    print(f"19 of 20 frames within {gaps[len(gaps) * 19 // 20]:.1f} ms, all {gaps[-1]:.1f} ms")
    for kind in KINDS:
        taken = 1000 * (after[kind] - before[kind]) / max(1, tokens)
        print(f"{kind:>12}: {taken:.3f} ms of the main thread a token")


if __name__ == "__main__":
    asyncio.run(main(*(int(text) for text in sys.argv[1:])))
