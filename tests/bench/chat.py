"""Measure the page's chat in a Chromium: `python -m tests.bench.chat [tokens|turns]`.

Prints how long the page's main thread works for each token that it shows, with and without how
sure the model was, and for each turn of a short and of a long conversation; then of what a frame of
the page, or a turn, consists, by a trace. Rendering is by software.
"""

import asyncio
import json
import sys
from collections import Counter
from contextlib import asynccontextmanager
from operator import itemgetter

from provider.scripted import Say, ScriptedProvider
from tests.bench.wall import KINDS, durations
from tests.support.browser import chromium
from tests.support.servers import running

RATES = (60, 200)  # tokens a second
SECONDS = 5
BEGIN_MS = 2000  # until the answer is long enough to scroll
TEXT = (
    "The **wolf** waited until the moon was high, and then everything was quiet. "
    "Nobody had seen `it` come. It listened to the wind for a while.\n\n"
)
ANSWER = "Wolves hunt in packs, and a pack is mostly a family. " * 8
LENGTHS = (10, 500)  # turns that are there before
TURNS = 8  # that are measured

# The parts of a frame by the events of a trace; those within others of the same part count once.
PARTS = {
    "script": ("FunctionCall", "HandlePostMessage"),
    "style": ("UpdateLayoutTree",),
    "layout": ("Layout",),
    "before paint": ("PrePaint",),
    "paint": ("Paint",),
    "layers": ("Layerize",),
    "commit": ("Commit",),
    "pointer": ("HitTest",),
    "garbage": ("MinorGC", "MajorGC"),
}
FRAME = "ProxyMain::BeginMainFrame"
TASK = "RunTask"
CATEGORIES = ("devtools.timeline", "disabled-by-default-devtools.timeline", "cc", "benchmark")
TRACED_S = 3  # a trace makes all slower, so what is measured before has none

STREAMS = "() => document.querySelector('.streaming') !== null"
SEED = """async (turns) => {
    const { openStore } = await import("/store/database.js");
    const store = await openStore();
    const conversation = "measured", title = "Wolves";
    const all = turns.map((content, index) => ({
        id: `t${index}`, conversation, parent: index ? `t${index - 1}` : null, made: index + 1,
        role: index % 2 ? "assistant" : "user", content, ...(index % 2 ? { ended: "stop" } : {}),
    }));
    const leaf = all.at(-1).id;
    await store.save([{ id: conversation, title, named: true, made: 1, changed: 1, leaf }], all);
}"""


def spent(before, after, count):
    """Say what was done between two readings, for each of `count`, in milliseconds."""
    each = {kind: 1000 * (after[kind] - before[kind]) / max(1, count) for kind in KINDS}
    return ", ".join(f"{kind} {taken:.3f}" for kind, taken in each.items())


@asynccontextmanager
async def traced(session):
    """Give the list that gets the events of the page's main thread, once the block is left."""
    events, all_of_them, ended = [], [], asyncio.Event()
    session.on("Tracing.dataCollected", lambda told: all_of_them.extend(told["value"]))
    session.on("Tracing.tracingComplete", lambda told: ended.set())
    config = {"includedCategories": [*CATEGORIES]}
    await session.send("Tracing.start", {"transferMode": "ReportEvents", "traceConfig": config})
    yield events
    await session.send("Tracing.end")
    await ended.wait()
    threads = Counter((one["pid"], one["tid"]) for one in all_of_them if one["name"] == FRAME)
    ((page, _),) = threads.most_common(1)
    events += [one for one in all_of_them if (one["pid"], one["tid"]) == page and one["ph"] == "X"]


def frames_of(events):
    return sum(one["name"] == FRAME for one in events)


def parts_of(events, count):
    """Say how long each part took in all, for each of `count`."""
    said = []
    for part, names in [*PARTS.items(), ("all", (TASK,))]:
        took = end = 0
        for one in sorted((one for one in events if one["name"] in names), key=itemgetter("ts")):
            if one["ts"] >= end:
                took += one.get("tdur", one["dur"])
                end = one["ts"] + one["dur"]
        said.append(f"{part} {took / 1000 / max(1, count):.2f}")
    return f"{', '.join(said)} ms"


async def watched(browser, url):
    page = await browser.new_page(viewport={"width": 1280, "height": 800})
    session = await page.context.new_cdp_session(page)
    await session.send("Performance.enable", {"timeDomain": "threadTicks"})  # of CPU
    await page.goto(url)
    await page.locator('#state[data-state="open"]').wait_for()
    return page, session


async def ask(page):
    """Ask by the focused text field: what looks for it by its label looks at the whole page."""
    await page.keyboard.insert_text("Tell me about wolves")
    await page.keyboard.press("Enter")


async def take_turns(page, provider):
    """Take some turns, and ask the page nothing that takes longer with what it shows."""
    for _ in range(TURNS):
        asked = len(provider.requests)
        await ask(page)
        while len(provider.requests) == asked or provider.live or await page.evaluate(STREAMS):
            await asyncio.sleep(0.02)


async def tokens(browser, rate, odds):
    provider = ScriptedProvider(
        script=[Say(TEXT * 100, top_logprobs=3 if odds else None)], tokens_per_second=rate
    )
    async with running(provider) as gateway:
        page, session = await watched(browser, gateway.url)
        if odds:
            await page.locator("#settings-button").click()
            await page.get_by_label("Show how sure it was").check()
            await page.locator("#settings-button").click()
        await ask(page)
        await page.wait_for_timeout(BEGIN_MS)
        (request,) = provider.requests
        before, produced = await durations(session), request.produced
        await page.wait_for_timeout(1000 * SECONDS)
        after, count = await durations(session), request.produced - produced
        async with traced(session) as events:
            await asyncio.sleep(TRACED_S)
        await page.close()
    name = f"{rate} tokens/s{', odds' if odds else ''}"
    print(f"{name:>18}: {spent(before, after, count)} ms a token", flush=True)
    shown = frames_of(events)
    rate = shown / TRACED_S
    print(f"{'':>18}  {rate:.1f} frames/s, each: {parts_of(events, shown)}", flush=True)


async def turns(browser, length):
    provider = ScriptedProvider(script=[Say(ANSWER)], tokens_per_second=None)
    async with running(provider) as gateway:
        page, session = await watched(browser, gateway.url)
        said = [ANSWER if index % 2 else "And then?" for index in range(2 * length)]
        await page.evaluate(SEED, said)
        await page.goto(f"{gateway.url}#chat/measured")
        await page.reload()
        await page.locator(".assistant").last.wait_for()
        await page.locator('#state[data-state="open"]').wait_for()
        await take_turns(page, provider)  # with which the page comes to rest after it was loaded
        before = await durations(session)
        await take_turns(page, provider)
        after = await durations(session)
        async with traced(session) as events:
            await take_turns(page, provider)
        nodes = await page.evaluate("document.querySelectorAll('*').length")
        sent = len(json.dumps(provider.requests[-1].options["messages"]))
        await page.close()
    print(f"{length:>4} turns before: {spent(before, after, TURNS)} ms a turn", end="; ")
    print(f"{nodes} elements, {sent / 1000:.0f} kB sent", flush=True)
    told = f"{frames_of(events) / TURNS:.1f} frames a turn, in all: {parts_of(events, TURNS)}"
    print(f"{'':>18}  {told} a turn", flush=True)


async def main(wanted="all"):
    async with chromium() as browser:
        if wanted in ("all", "tokens"):
            for rate in RATES:
                for odds in (False, True):
                    await tokens(browser, rate, odds)
        if wanted in ("all", "turns"):
            for length in LENGTHS:
                await turns(browser, length)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
