"""A real Firefox, driven by WebDriver BiDi, the protocol of Debian's Firefox as well."""

import asyncio
import contextlib
import itertools
import json
import re
import shutil
import tempfile
from asyncio.subprocess import DEVNULL, PIPE
from contextlib import asynccontextmanager

from websockets.asyncio.client import connect

from tests.support.timeouts import STARTING

NAMES = ("firefox-esr", "firefox")
ENTER = "\ue007"


def find_firefox():
    """Return a path, or None."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


class Bidi:
    """A session: commands and their results."""

    def __init__(self, socket):
        self._socket = socket
        self._ids = itertools.count(1)

    async def send(self, method, **parameters):
        """Return a command's result. Raises RuntimeError."""
        number = next(self._ids)
        await self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        async with asyncio.timeout(STARTING):
            while (answer := json.loads(await self._socket.recv())).get("id") != number:
                pass
        if answer["type"] == "error":
            raise RuntimeError(f"{method}: {answer['message']}")
        return answer["result"]


class Tab:
    """One page."""

    def __init__(self, bidi, context):
        self._bidi = bidi
        self._context = context

    async def goto(self, url):
        await self._send("browsingContext.navigate", url=url, wait="complete")

    async def reload(self):
        await self._send("browsingContext.reload", wait="complete")

    async def evaluate(self, expression):
        """Return the value of an expression that is a text, a number, true, false or null."""
        target = {"context": self._context}
        said = await self._bidi.send(
            "script.evaluate", expression=expression, target=target, awaitPromise=True
        )
        if said["type"] == "exception":
            raise RuntimeError(said["exceptionDetails"]["text"])
        return said["result"].get("value")

    async def wait_for(self, expression):
        """Wait until an expression is true."""
        async with asyncio.timeout(STARTING):
            while not await self.evaluate(expression):
                await asyncio.sleep(0.05)

    async def type(self, text):
        """Press the keys of a text where the focus is."""
        keys = [{"type": kind, "value": key} for key in text for kind in ("keyDown", "keyUp")]
        keyboard = {"type": "key", "id": "keyboard", "actions": keys}
        await self._send("input.performActions", actions=[keyboard])

    async def close(self):
        await self._send("browsingContext.close")

    async def _send(self, method, **parameters):
        return await self._bidi.send(method, context=self._context, **parameters)


@asynccontextmanager
async def firefox(path):
    """Run a Firefox; yield what opens a tab with storage of its own."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [path, "--headless", "--remote-debugging-port", "0", "--profile", profile]
        process = await asyncio.create_subprocess_exec(*command, stdout=DEVNULL, stderr=PIPE)
        reading = None
        try:
            async with asyncio.timeout(STARTING):
                said = b""
                while not (found := re.search(rb"BiDi listening on (ws://\S+)", said)):
                    said = await process.stderr.readline()
                    assert said, "Firefox has ended"
            reading = asyncio.create_task(process.stderr.read())  # so that it never waits for us
            url, patient = f"{found[1].decode()}/session", {"open_timeout": STARTING}
            async with connect(url, max_size=None, ping_interval=None, **patient) as socket:
                bidi = Bidi(socket)
                await bidi.send("session.new", capabilities={})

                async def open_tab():
                    user = (await bidi.send("browser.createUserContext"))["userContext"]
                    made = await bidi.send("browsingContext.create", type="tab", userContext=user)
                    return Tab(bidi, made["context"])

                yield open_tab
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            if reading:
                await reading
