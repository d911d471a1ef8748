"""A client of AI SDK's chat for tests: it checks what the real one checks, and sees each frame."""

import asyncio
import itertools
import json
from collections import Counter
from contextlib import asynccontextmanager

from websockets.asyncio.client import connect

from tests.support.servers import TIMEOUT

ENDS = ("end", "error", "no-active")


class Client:
    def __init__(self, socket):
        self.socket = socket
        self.numbers = itertools.count()
        self.next_sequence = Counter()

    async def send(self, **fields):
        await self.socket.send(json.dumps(fields))

    async def ask(self, messages, chat="c", body=None, **fields):
        """Send a turn, and return its request's id."""
        request = f"r{next(self.numbers)}"
        if isinstance(messages, str):
            messages = [user(messages)]
        headers, body = {"authorization": "Bearer x"}, body or {}
        more = {"headers": headers, "body": body, "trigger": "submit-message", **fields}
        await self.send(type="send", requestId=request, id=chat, messages=messages, **more)
        return request

    async def resume(self, chat="c", **fields):
        request = f"r{next(self.numbers)}"
        await self.send(type="resume", requestId=request, id=chat, headers={}, body={}, **fields)
        return request

    async def abort(self, request):
        await self.send(type="abort", requestId=request)

    async def receive(self):
        async with asyncio.timeout(TIMEOUT):
            frame = json.loads(await self.socket.recv())
        assert isinstance(frame["requestId"], str)
        if frame["type"] == "chunk":
            assert frame["sequence"] == self.next_sequence[frame["requestId"]]
            self.next_sequence[frame["requestId"]] += 1
        return frame

    async def until(self, found):
        """Return the frames up to and with the first for which `found(frame)` is true."""
        frames = [await self.receive()]
        while not found(frames[-1]):
            frames.append(await self.receive())
        return frames

    async def until_end(self):
        return await self.until(lambda frame: frame["type"] in ENDS)

    async def until_text(self, pieces=1):
        frames = []
        for _ in range(pieces):
            frames += await self.until(is_text)
        return frames

    async def answer(self, *arguments, **fields):
        """Ask, and return all frames of the answer."""
        await self.ask(*arguments, **fields)
        return await self.until_end()


@asynccontextmanager
async def chatting(gateway, **options):
    async with connect(f"ws://127.0.0.1:{gateway.port}/v1/chat", **options) as socket:
        yield Client(socket)


def user(text, **more):
    return {"id": "u", "role": "user", "parts": [{"type": "text", "text": text}], **more}


def is_text(frame):
    return frame["type"] == "chunk" and frame["chunk"]["type"] == "text-delta"


def chunks(frames, *, waiting=False):
    """Return the chunks in frames, by default without what only says how far something is."""
    found = [frame["chunk"] for frame in frames if frame["type"] == "chunk"]
    return [one for one in found if waiting or one["type"] != "data-progress"]


def kinds(frames):
    """Return the types of chunks, those of deltas once."""
    names = [chunk["type"] for chunk in chunks(frames)]
    return [name for at, name in enumerate(names) if at == 0 or names[at - 1] != name]


def text_of(frames, kind="text"):
    return "".join(one["delta"] for one in chunks(frames) if one["type"] == f"{kind}-delta")
