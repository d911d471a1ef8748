"""Whatever bytes come: requests, or the documented errors; and each answer can be written."""

import json
import random

import pytest

from gateway.dialects.base import FrameLimits, Opening, RouteLimits
from gateway.dialects.kept_bytes import KeptBytes
from gateway.dialects.responses.dialect import ROUTE
from gateway.protocol.codes import BadFrame, NotAFrame
from gateway.protocol.frames import Chunk, Done, Ready, Started, Timing, ToolCall, Usage
from gateway.protocol.session import Begin, Session, Stop
from provider.options import parse_options
from tests.gateway.dialects.fuzz import ODD, SNIPPETS
from tests.gateway.dialects.responses.clients import ENDS

READY = Ready(protocol="p", server="s", epoch="e", connection="c", models=["m"], limits={})
TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True}
ITEMS = [
    {"role": "developer", "content": "x"},
    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "§"}]},
    {"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png;base64,AA"}]},
    {"role": "user", "content": [{"type": "input_file", "filename": "a", "file_data": "YQ=="}]},
    {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
    {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c", "output": "1"},
    {"type": "item_reference", "id": "x"},
]
GOOD = [
    {"type": "response.create", "input": "hi", "stream_id": "a"},
    {"type": "response.create", "input": ITEMS[:-1], "tools": [TOOL], "tool_choice": "required"},
    {
        "type": "response.create",
        "response": {"input": ITEMS[:2]},
        "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [TOOL]},
        "tools": [TOOL, {"type": "x"}],
        "text": {"format": {"type": "json_schema", "name": "n", "schema": {}}, "verbosity": "low"},
        "reasoning": {"effort": "low", "summary": None},
        "include": ["message.output_text.logprobs"],
        "metadata": {"a": "b"},
        "generate": False,
        "store": False,
        "truncation": "auto",
    },
    {"type": "response.create", "input": ITEMS},
    {"type": "response.cancel", "response_id": "x", "stream_id": "a"},
    {"type": "response.steer", "previous_response_id": "x", "input": "y"},
    {"type": "response.processed"},
]


class Fuzz:
    def __init__(self, seed):
        self.random = random.Random(seed)
        limits = RouteLimits(FrameLimits(values=2000), generations=3, kept=KeptBytes(20_000))
        self.dialect = ROUTE.prepare(limits)(Opening(client="c"))
        self.dialect.greet(READY)
        self.session = Session(default_model="m")
        self.begun = {}

    def message(self):
        data = json.dumps(self.changed(self.random.choice(GOOD))).encode()
        if self.random.random() < 0.2:
            at = self.random.randrange(len(data))
            data = data[:at] + self.random.choice(SNIPPETS) + data[at + self.random.randrange(3) :]
        return data.decode("utf-8", "surrogateescape").encode("utf-8", "replace").decode()

    def changed(self, value):
        """Return plain data in which something may be odd, or missing."""
        if self.random.random() < 0.04:
            return self.random.choice([odd for odd in ODD if odd == odd])
        if isinstance(value, dict):
            return {k: self.changed(v) for k, v in value.items() if self.random.random() > 0.02}
        if isinstance(value, list):
            return [self.changed(one) for one in value]
        return value

    def send(self, message):
        try:
            for _ in self.dialect.check(message):
                pass
            requests = self.dialect.decode(message)
        except BadFrame as error:
            self.session.reject(error)
        except NotAFrame:
            raise AssertionError("a text is never the end of a connection") from None
        else:
            self.act(requests)

    def act(self, requests):
        for request in requests:
            for command in self.session.receive(request, 0.0):
                match command:
                    case Begin(generation, frame):
                        self.check(frame)
                        self.begun[generation.id] = generation
                    case Stop(generation):
                        self.begun.pop(generation.id, None)

    def check(self, frame):
        """Check that what the provider is asked is well formed, but for the data of images."""
        told = [m for m in frame.messages if isinstance(m["content"], str)]
        parse_options({"messages": told or None, "tool_choice": frame.tool_choice}, {})

    def drain(self):
        """Return the events that the client gets, as it reads them."""
        events = []
        while self.session.waiting:
            popped, generation = self.session.pop_events()
            for event in popped:
                events += [json.loads(m.data) for m in self.dialect.encode(event)]
            if generation is None or generation.over:
                self.act(self.dialect.next_requests())
        return events

    def answer(self):
        """Let one generation say something and end."""
        if not self.begun:
            return []
        name = self.random.choice(list(self.begun))
        generation = self.begun.pop(name)
        at = {"id": name, "seq": 0}
        said = [
            Started(**at, model="m", prompt_tokens=1, cached_tokens=0),
            Chunk(**at, text="\ud800x", channel=self.random.choice([None, "reasoning"])),
            ToolCall(**at, index=0, call_id="c", name="f", arguments="{", complete=True),
        ]
        events = [json.loads(m.data) for one in said for m in self.dialect.encode(one)]
        done = Done(**at, finish_reason="stop", usage=Usage(), timing=Timing())
        events += [json.loads(m.data) for m in self.dialect.encode(done)]
        generation.cancel(0.0)
        self.session.enqueue(generation)
        return events


@pytest.mark.parametrize("seed", range(3))
def test_whatever_comes_is_answered(seed):
    fuzz, events = Fuzz(seed), []
    for _ in range(400):
        fuzz.send(fuzz.message())
        events += fuzz.drain()
        if fuzz.random.random() < 0.7:
            events += fuzz.answer()
        events += fuzz.drain()
    kinds = {event["type"] for event in events}
    assert kinds >= {*ENDS[:1], "error", "response.steer.failed", "response.output_text.delta"}
    ended = [e["response"]["id"] for e in events if e["type"] in ENDS and "response" in e]
    assert len(ended) == len(set(ended)) > 20
