"""A client of AG-UI for tests: it sees each event, and its offset."""

import asyncio
import itertools
import json
from contextlib import asynccontextmanager

from websockets.asyncio.client import connect

from tests.support.servers import TIMEOUT

ENDS = ("RUN_FINISHED", "RUN_ERROR")


class Client:
    def __init__(self, socket):
        self.socket = socket
        self.numbers = itertools.count()
        self.offsets = []  # of what came

    async def send(self, **fields):
        await self.socket.send(json.dumps(fields))

    async def ask(self, messages, props=None, **fields):
        """Send a run, and return its id."""
        if isinstance(messages, str):
            messages = [user(messages)]
        run = fields.pop("runId", f"r{next(self.numbers)}")
        given = {"messages": messages, "tools": [], "context": [], "state": {}}
        more = {"threadId": "t", "runId": run, "forwardedProps": props or {}, **fields}
        await self.send(**{**given, **more})
        return run

    async def abort(self, run):
        await self.send(type="abort", runId=run)

    async def receive(self):
        async with asyncio.timeout(TIMEOUT):
            message = json.loads(await self.socket.recv())
        if "chunk" in message:
            assert message["id"] not in self.offsets
            self.offsets.append(message["id"])
            return message["chunk"]
        return message

    async def until(self, *kinds):
        """Return the events up to and with the first of these types."""
        events = [await self.receive()]
        while events[-1]["type"] not in kinds:
            events.append(await self.receive())
        return events

    async def until_end(self):
        return await self.until(*ENDS)

    async def until_text(self):
        return await self.until("TEXT_MESSAGE_CONTENT")

    async def answer(self, *arguments, **fields):
        """Send a run, and return all of its events."""
        await self.ask(*arguments, **fields)
        return await self.until_end()


@asynccontextmanager
async def running_agui(gateway, query="", **options):
    url = f"ws://127.0.0.1:{gateway.port}/v1/agui{query}"
    async with connect(url, **options) as socket:
        yield Client(socket)


def user(content):
    return {"id": "u", "role": "user", "content": content}


def kinds(events):
    """Return the types of events, those of deltas once."""
    names = [event["type"] for event in events]
    return [name for at, name in enumerate(names) if at == 0 or names[at - 1] != name]


def text_of(events):
    return "".join(one["delta"] for one in events if one["type"] == "TEXT_MESSAGE_CONTENT")
