"""A client of Realtime for tests: it sees every event as a dict."""

import asyncio
import json
from contextlib import asynccontextmanager

from websockets.asyncio.client import connect

from tests.support.servers import TIMEOUT

ENDS = ("response.done", "error")


def user(text, **fields):
    content = [{"type": "input_text", "text": text}]
    return {"type": "message", "role": "user", "content": content, **fields}


def output(call_id, text):
    return {"type": "function_call_output", "call_id": call_id, "output": text}


class Client:
    def __init__(self, socket):
        self.socket = socket

    async def send(self, kind, **fields):
        await self.socket.send(json.dumps({"type": kind, **fields}))

    async def receive(self):
        async with asyncio.timeout(TIMEOUT):
            return json.loads(await self.socket.recv())

    async def until(self, *kinds):
        """Return the events up to and with the first of these types."""
        events = [await self.receive()]
        while events[-1]["type"] not in kinds:
            events.append(await self.receive())
        return events

    async def refused(self, kind, **fields):
        """Send what is refused; return the error."""
        await self.send(kind, event_id="mine", **fields)
        event = await self.receive()
        assert event["type"] == "error", event
        assert event["error"]["event_id"] == "mine"
        return event["error"]

    async def set(self, **session):
        """Change the session; return it."""
        await self.send("session.update", session={"type": "realtime", **session})
        event = await self.receive()
        assert event["type"] == "session.updated", event
        return event["session"]

    async def add(self, item, **fields):
        """Add an item; return it, and the id of the one before it."""
        await self.send("conversation.item.create", item=item, **fields)
        added, done = await self.receive(), await self.receive()
        kinds = ("conversation.item.added", "conversation.item.done")
        assert (added["type"], done["type"]) == kinds, added
        assert added["item"] == done["item"]
        return added["item"], added["previous_item_id"]

    async def create(self, **response):
        """Ask for a response; return its events."""
        await self.send("response.create", **({"response": response} if response else {}))
        return await self.until(*ENDS)

    async def ask(self, text, **response):
        """Say something; return the events of the response to it."""
        await self.add(user(text))
        return await self.create(**response)


@asynccontextmanager
async def realtime(gateway, query="", **options):
    """Open a session; its first event is checked and not given."""
    url = f"ws://127.0.0.1:{gateway.port}/v1/realtime{query}"
    async with connect(url, **options) as socket:
        client = Client(socket)
        first = await client.receive()
        assert first["type"] == "session.created"
        client.session = first["session"]
        yield client


def kinds(events):
    """Return the types of events, those of deltas once."""
    names = [event["type"].removeprefix("response.") for event in events]
    return [name for at, name in enumerate(names) if at == 0 or names[at - 1] != name]


def text_of(end):
    items = end["response"]["output"]
    return "".join(p["text"] for i in items if i["type"] == "message" for p in i["content"])
