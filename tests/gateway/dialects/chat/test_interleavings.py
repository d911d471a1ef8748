"""Whatever pages send, cut, stop and resume: each request ends once, with the text as it is."""

import asyncio
import random

import pytest

from provider.scripted import Gate, Say, ScriptedProvider
from tests.gateway.dialects.chat.clients import ENDS, chatting, chunks, text_of
from tests.support.servers import eventually, running

PIECES = [f"{n} " for n in range(12)]
WHOLE = "".join(PIECES)
CHATS = ("a", "b")
ANY = {"max_queue": None}  # so that a page may be closed with frames that it has not read


class Steady:
    """An event that lets its waiter go on in a later turn of the loop."""

    async def wait(self):
        await asyncio.sleep(0.001)


class Page:
    """A page that notes what comes for each of its requests."""

    def __init__(self, client):
        self.client = client
        self.frames = {}

    async def read(self, number=1):
        """Read some frames, if they come before all requests have ended."""
        for _ in range(number):
            if not self.open:
                return
            frame = await self.client.receive()
            self.frames[frame["requestId"]].append(frame)

    @property
    def open(self):
        return [
            request
            for request, frames in self.frames.items()
            if not frames or frames[-1]["type"] not in ENDS
        ]

    def check(self, stopped):
        """Check what came of each request; a chat that is `stopped` may end early."""
        for request, frames in self.frames.items():
            kinds = [frame["type"] for frame in frames if frame["type"] in ENDS]
            assert len(kinds) <= 1, request
            text = text_of(frames)
            assert WHOLE.startswith(text), request
            if kinds == ["end"]:
                last = chunks(frames)[-1]["type"]
                assert last in {"finish", "abort"}
                assert text == WHOLE or (last == "abort" and stopped)
            elif kinds == ["error"]:
                assert "duplicate_id" in frames[-1]["errorText"]


MORE = [pytest.param(seed, marks=pytest.mark.slow("more interleavings")) for seed in range(4, 40)]


@pytest.mark.parametrize("seed", [*range(4), *MORE])
async def test_each_request_ends_once_with_its_text(seed):
    choose = random.Random(seed)
    script = [step for piece in PIECES for step in (Say(piece), Gate(Steady()))]
    provider = ScriptedProvider(script=script, tokens_per_second=None)
    stopped = False
    async with running(provider) as gateway:
        for _ in range(3):
            async with chatting(gateway, **ANY) as first, chatting(gateway, **ANY) as second:
                pages = [Page(first), Page(second)]
                for _ in range(10):
                    page = choose.choice(pages)
                    what = choose.choice(("send", "resume", "abort", "read", "read"))
                    if what == "send":
                        page.frames[await page.client.ask("hi", chat=choose.choice(CHATS))] = []
                    elif what == "resume":
                        page.frames[await page.client.resume(chat=choose.choice(CHATS))] = []
                    elif what == "abort" and page.open:
                        stopped = True
                        await page.client.abort(choose.choice(page.open))
                    else:
                        await page.read(choose.randrange(1, 12))
                if choose.random() < 0.6:  # else both are cut off
                    for page in pages:
                        while page.open:
                            await page.read()
                for page in pages:
                    page.check(stopped)
            await eventually(lambda: not gateway._generations.connections)
        await eventually(lambda: not gateway._generations.live)
        assert not provider.live
