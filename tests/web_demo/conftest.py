"""Pages of a real Chromium, a gateway to point them at, and what is done on a page."""

import asyncio
import json
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from weakref import WeakKeyDictionary

import pytest
import pytest_asyncio

from gateway.server.pages import web_root
from provider import MLXProvider
from provider.scripted import Call, Say, ScriptedProvider
from tests.support.browser import WINDOW
from tests.support.servers import running
from tests.support.timeouts import STARTING, TIMEOUT

TIMEOUT_MS = 60_000  # a page may be one of several on a processor, and wait for a model
ANSWER = ".assistant .text"
FIGURES = ".assistant .figures"
# Keeps what the page says to screen readers.
LISTEN = """() => {
    globalThis.heard = [];
    const region = document.querySelector("#spoken");
    new MutationObserver(() => region.textContent && heard.push(region.textContent))
        .observe(region, { childList: true, characterData: true, subtree: true });
}"""
NODE = Path(sys.executable).with_name("node")
SENT = WeakKeyDictionary()  # what each page has sent over its sockets
wants_node = pytest.mark.skipif(not NODE.exists(), reason="no Node: `make lint` fetches it")


@pytest_asyncio.fixture(loop_scope="session")
async def new_page(browser, profile):
    """Open the demo page; what goes wrong in it fails the test.

    A further page, and one that is `alone` or has `options` of a context, has a context of its own.
    """
    problems, contexts, pages = [], [], []

    async def page_of(viewport=None, *, alone=False, **options):
        if pages or alone or options:
            context = await browser.new_context(viewport=viewport or WINDOW, **options)
            contexts.append(context)
            return await context.new_page()
        page = await profile.new_page()
        if viewport:
            await page.set_viewport_size(viewport)
        return page

    async def open_page(url, *, ready=True, **options):
        page = watched(await page_of(**options), problems)
        pages.append(page)
        await page.goto(url)
        if ready:
            await page.wait_for_selector('#state[data-state="open"]')
        return page

    yield open_page
    for context in contexts:
        await context.close()
    assert problems == []


@pytest_asyncio.fixture(loop_scope="session")
async def blank_page(profile):
    """Open an empty page of a gateway, which takes less time than the demo page."""
    problems = []

    async def open_page(gateway):
        page = watched(await profile.new_page(), problems)
        await page.goto(f"{gateway.url}healthz")
        return page

    yield open_page
    assert problems == []


def watched(page, problems):
    """Return a page whose errors are added to `problems`, and whose waits have a limit."""
    page.set_default_timeout(TIMEOUT_MS)
    page.on("pageerror", lambda error: problems.append(str(error)))
    SENT[page] = frames = []

    def keep(payload):
        frames.append(payload)

    page.on("websocket", lambda socket: socket.on("framesent", keep))
    return page


async def evaluate(page, body):
    """Run a piece of JavaScript that has `client` and `m`, client.js's exports."""
    code = "async () => { const m = await import('/client.js'); const client = m.connect(); %s }"
    return await page.evaluate(code % body)


@asynccontextmanager
async def scripted_gateway(*steps, script=None, tokens_per_second=None, **changes):
    """A gateway in this process whose answers are these steps, a script, or the default one."""
    options = {"script": script or steps} if script or steps else {}
    provider = ScriptedProvider(tokens_per_second=tokens_per_second, **options)
    async with running(provider, **changes) as gateway:
        yield gateway


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def embedded():
    """The small model, loaded once for the page's tests."""
    provider = MLXProvider()
    yield provider
    await provider.aclose()


def closed_at(gateway, seq):
    """Return whether a window is closed after the frame `seq`."""
    return any(
        generation.window_closed and generation._sent_seq == seq
        for connection in gateway._connections
        for generation in connection._session.generations
    )


def adding(*before, after=()):
    """Return a script whose answer calls `add`, and says the sum once it has the result."""

    def script(request):
        if any(message["role"] == "tool" for message in request.options["messages"]):
            return [Say("It is 3."), *after]
        return [*before, Call("add", {"a": 1, "b": 2})]

    return script


async def ask(page, text, pane=0):
    box = page.get_by_label("Message", exact=True).nth(pane)
    await box.fill(text)
    await box.press("Enter")


async def wait_for_text(page, selector, text, which=0):
    await page.locator(selector, has_text=text).nth(which).wait_for()


KEPT = """async () => {
    const { openStore } = await import("/store/database.js");
    const store = (globalThis.storeOfTests ??= await openStore());
    const values = await Promise.all([store.value("settings"), store.value("drafts")]);
    return JSON.stringify([await store.turns(), values]);
}"""


async def wait_until_kept(page, text):
    """Wait until the browser keeps something with a text in it: a turn, a draft, a setting."""
    async with asyncio.timeout(TIMEOUT):
        while text not in await page.evaluate(KEPT):
            await asyncio.sleep(0.02)


async def wait_until_gone(page, text):
    """Wait until the browser keeps nothing with a text in it any more."""
    async with asyncio.timeout(TIMEOUT):
        while text in await page.evaluate(KEPT):
            await asyncio.sleep(0.02)


async def load_again(page):
    """Load a page again, once the browser keeps what the page has told it to."""
    await page.evaluate(KEPT)  # reads come after the writes that have begun
    await page.reload()


async def tab_beside(page):
    """Open the address of a page once more, in another tab of its browser."""
    tab = await page.context.new_page()
    tab.set_default_timeout(TIMEOUT_MS)
    await tab.goto(page.url)
    await tab.wait_for_selector('#state[data-state="open"]')
    return tab


@asynccontextmanager
async def settings_of(page):
    """Open the settings, and close them again."""
    await page.locator("#settings-button").click()
    await page.locator("#settings .field").first.wait_for()
    yield page.locator("#settings")
    await page.locator("#settings-button").click()


async def answered(page, text):
    """Ask something and wait for the end of the turn; return it."""
    before = await page.locator(".assistant").count()
    await ask(page, text)
    turn = page.locator(".assistant:not(.streaming)").nth(before)
    await turn.wait_for()
    return turn


def sent_by(page):
    """Return the requests that a page has sent so far."""
    frames = (json.loads(payload) for payload in SENT[page])
    return [frame for frame in frames if frame["type"] == "generate"]


async def in_node(module, body, url=""):
    """Run a program that has `m`, a module of the page, and `url`; return what it says as JSON."""
    path = json.dumps((web_root() / module).as_uri())
    program = f"import * as m from {path}; const url = {json.dumps(url)};\n{body}"
    process = await asyncio.create_subprocess_exec(
        NODE,
        "--input-type=module",
        "--eval",
        program,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(STARTING):
            said, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, errors.decode()
    return json.loads(said)
