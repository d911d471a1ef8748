"""Pages of a real Chromium, a gateway to point them at, and what is done on a page."""

import asyncio
import json
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from gateway.server.pages import web_root
from provider.scripted import ScriptedProvider
from tests.support.servers import running
from tests.support.timeouts import TIMEOUT

TIMEOUT_MS = 20_000
ANSWER = ".assistant .text"
FIGURES = ".assistant .figures"
NODE = Path(sys.executable).with_name("node")
wants_node = pytest.mark.skipif(not NODE.exists(), reason="no Node: `make lint` fetches it")


@pytest_asyncio.fixture(loop_scope="session")
async def new_page(browser):
    """Open pages, each with storage of its own; what goes wrong inside one fails the test."""
    problems, contexts = [], []

    async def open_page(url, *, ready=True, **options):
        context = await browser.new_context(
            **{"viewport": {"width": 1280, "height": 800}, **options}
        )
        contexts.append(context)
        page = await context.new_page()
        page.set_default_timeout(TIMEOUT_MS)
        page.on("pageerror", lambda error: problems.append(str(error)))
        await page.goto(url)
        if ready:
            await page.wait_for_selector('#state[data-state="open"]')
        return page

    yield open_page
    for context in contexts:
        await context.close()
    assert problems == []


@asynccontextmanager
async def scripted_gateway(*script, tokens_per_second=None, **changes):
    """A gateway in this process whose answers are a script, or the default one."""
    options = {"script": script} if script else {}
    provider = ScriptedProvider(tokens_per_second=tokens_per_second, **options)
    async with running(provider, **changes) as gateway:
        yield gateway


async def ask(page, text, pane=0):
    box = page.get_by_label("Message", exact=True).nth(pane)
    await box.fill(text)
    await box.press("Enter")


async def wait_for_text(page, selector, text, which=0):
    await page.locator(selector, has_text=text).nth(which).wait_for()


@asynccontextmanager
async def settings_of(page):
    """Open the settings, and close them again."""
    await page.get_by_role("button", name="Settings").click()
    yield page.locator("#settings")
    await page.keyboard.press("Escape")


async def answered(page, text):
    """Ask something and wait for the end of the turn; return it."""
    before = await page.locator(".assistant").count()
    await ask(page, text)
    turn = page.locator(".assistant:not(.streaming)").nth(before)
    await turn.wait_for()
    return turn


def sent_by(page):
    """Return a list that the page's requests will be in; call it before they are made."""
    frames = []

    def take(payload):
        frame = json.loads(payload)
        if frame["type"] == "generate":
            frames.append(frame)

    page.on("websocket", lambda socket: socket.on("framesent", take))
    return frames


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
        async with asyncio.timeout(TIMEOUT):
            said, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, errors.decode()
    return json.loads(said)
