"""Whatever a client of AG-UI sends, aborts and cuts: each run ends once, with the text as it is."""

import asyncio

from hypothesis import strategies as st

from tests.gateway.dialects.agui.clients import ENDS, running_agui, text_of
from tests.gateway.dialects.interleavings import TEXTS, cut_off, many, some, teller
from tests.support.servers import eventually, running

STEP = st.one_of(
    st.tuples(st.just("run"), st.sampled_from([*TEXTS, "wrong"])),
    st.tuples(st.just("abort"), st.sampled_from(["first", "last", "nobody"])),
    st.tuples(st.just("read"), st.integers(1, 9)),
)


@some(STEP)
def test_whatever_comes_each_run_ends_once_with_its_text(steps, cut):
    asyncio.run(interleaved(steps, cut=cut))


@many(STEP)
def test_whatever_comes_for_long_each_run_ends_once_with_its_text(steps, cut):
    asyncio.run(interleaved(steps, cut=cut))


class Runs:
    """The runs that a client has asked for, and what came of each."""

    def __init__(self, client):
        self.client = client
        self.asked = {}  # the word of each by its id
        self.told = {}
        self.stopped = set()
        self._open = None  # the run whose events come

    @property
    def waiting(self):
        ended = {own for own, events in self.told.items() if events and events[-1]["type"] in ENDS}
        return [own for own in self.asked if own not in ended | self.stopped]

    async def ask(self, word):
        props = {} if word in TEXTS else {"temperature": "hot"}
        self.asked[await self.client.ask(word, props)] = word

    async def abort(self, which):
        places = {"first": self.waiting[:1], "last": self.waiting[-1:], "nobody": ["nobody"]}
        for own in places[which]:
            self.stopped.add(own)
            await self.client.abort(own)

    async def read(self):
        event = await self.client.receive()
        assert event.get("code") != "aborted"  # nothing more comes of such a run
        if event["type"] == "RUN_STARTED":
            assert self._open is None or self._open in self.stopped
            self._open = event["runId"]
        own = event.get("runId", self._open)
        self.told.setdefault(own, []).append(event)
        if event["type"] in ENDS and own == self._open:
            self._open = None

    def check(self):
        for own, word in self.asked.items():
            events = self.told.get(own, [])
            ends = [event for event in events if event["type"] in ENDS]
            text = text_of(events)
            if own in self.stopped:
                assert len(ends) <= 1
                assert TEXTS.get(word, "").startswith(text)
                continue
            assert ends == events[-1:]
            if ends[0]["type"] == "RUN_FINISHED":
                assert text == TEXTS[word]
            else:
                code = "invalid_request" if word == "wrong" else "rate_limited"
                assert ([event["type"] for event in events], ends[0]["code"]) == (
                    ["RUN_ERROR"],
                    code,
                )


async def interleaved(steps, *, cut):
    async with running(teller()) as gateway, running_agui(gateway, max_queue=None) as client:
        runs = Runs(client)
        for kind, how in steps:
            if kind == "run":
                await runs.ask(how)
            elif kind == "abort":
                await runs.abort(how)
            for _ in range(how if kind == "read" else 0):
                if runs.waiting:
                    await runs.read()
        if cut:
            await cut_off(client, gateway)
            return
        while runs.waiting:
            await runs.read()
        await runs.ask("short")  # behind it, nothing of the others is left
        while runs.waiting:
            await runs.read()
        runs.check()
        await eventually(lambda: not gateway.provider.live)
