"""A client of Responses for tests: it sees every event as a dict."""

import asyncio
import json
from contextlib import asynccontextmanager

from websockets.asyncio.client import connect

from tests.support.servers import TIMEOUT

ENDS = ("response.completed", "response.incomplete", "response.failed", "error")


class Client:
    def __init__(self, socket):
        self.socket = socket

    async def send(self, kind, **fields):
        await self.socket.send(json.dumps({"type": kind, **fields}))

    async def create(self, given=None, **fields):
        """Ask for a response, and return its events."""
        await self.send("response.create", **({} if given is None else {"input": given}), **fields)
        return await self.until_end()

    async def receive(self):
        async with asyncio.timeout(TIMEOUT):
            return json.loads(await self.socket.recv())

    async def until(self, *kinds):
        """Return the events up to and with the first of these types."""
        events = [await self.receive()]
        while events[-1]["type"] not in kinds:
            events.append(await self.receive())
        return events

    async def until_end(self):
        return await self.until(*ENDS)

    async def nothing_comes(self):
        """Check that what was sent has no answer: the next event is the answer to another."""
        await self.send("response.create", conversation="c", stream_id="check")
        assert (await self.receive())["error"]["param"] == "conversation"


@asynccontextmanager
async def responding(gateway, **options):
    url = f"ws://127.0.0.1:{gateway.port}/v1/responses"
    async with connect(url, **options) as socket:
        yield Client(socket)


def kinds(events):
    """Return the types of events, those of deltas once."""
    names = [event["type"].removeprefix("response.") for event in events]
    return [name for at, name in enumerate(names) if at == 0 or names[at - 1] != name]


def text_of(response):
    return "".join(
        part["text"]
        for item in response["output"]
        if item["type"] == "message"
        for part in item["content"]
    )
