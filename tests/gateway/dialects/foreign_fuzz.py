"""Whatever a client of another protocol sends, only documented answers follow.

Each input goes through a dialect into a session that lives on, as in fuzz.py, and what the dialect
makes of the session's events must be JSON objects. Anything raised but NotAFrame and BadFrame is a
bug.
"""

import json
import random
from collections import Counter

from gateway.dialects.base import FrameLimits, Opening, RouteLimits
from gateway.dialects.routes import ROUTES
from gateway.protocol.codes import BadFrame, ErrorCode, NotAFrame
from gateway.protocol.events import Refusal
from gateway.protocol.frames import Ready
from gateway.protocol.session import Begin, Session, TakeOver
from provider.interface import GenerateResponse, ToolCallDelta
from tests.gateway.dialects.fuzz import ODD, SNIPPETS, admit

CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
TOOL = {"name": "f", "description": "F", "parameters": {"type": "object"}}
PART = {"type": "tool-f", "toolCallId": "1", "state": "output-available", "input": {}, "output": 1}
TEXT = {"type": "text", "text": "hi"}
FILE = {"type": "file", "mediaType": "text/plain", "url": "data:text/plain;base64,aGk="}
TURNS = [
    {"id": "u", "role": "user", "parts": [TEXT, FILE]},
    {"id": "a", "role": "assistant", "parts": [{"type": "step-start"}, TEXT, PART]},
]
ASKED = {"requestId": "r", "id": "c", "headers": {}, "body": {"topP": 0.5, "tools": [TOOL]}}
RUN = {"threadId": "t", "runId": "r", "state": {}, "context": [], "tools": [TOOL]}
SAID = [
    {"role": "user", "content": [TEXT]},
    {"role": "assistant", "content": "a", "toolCalls": [CALL]},
    {"role": "tool", "toolCallId": "1", "content": "{}"},
]
ITEMS = [
    {
        "type": "message",
        "role": "user",
        "content": [{"type": "input_text", "text": "hi"}],
        "id": "u",
    },
    {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "1", "output": "{}"},
]
REALTIME = {
    "instructions": "x",
    "tools": [{"type": "function", **TOOL}],
    "tool_choice": "auto",
    "max_output_tokens": "inf",
    "truncation": "auto",
    "output_modalities": ["text"],
}
GOOD = {
    "/v1/responses": [
        {"type": "response.create", "input": "hi", "stream_id": "a", "generate": False},
        {"type": "response.create", "input": ITEMS, "tools": REALTIME["tools"], "store": False},
        {"type": "response.create", "input": ITEMS, "truncation": "auto", "stream_id": "b"},
        {"type": "response.create", "input": [{"type": "item_reference", "id": "u"}]},
        {"type": "response.cancel", "stream_id": "a"},
        {"type": "response.steer", "previous_response_id": "x", "input": "y"},
    ],
    "/v1/realtime": [
        {"type": "session.update", "session": {"type": "realtime", **REALTIME}, "event_id": "e"},
        *({"type": "conversation.item.create", "item": item} for item in ITEMS),
        {"type": "conversation.item.create", "item": ITEMS[1], "previous_item_id": "root"},
        {"type": "conversation.item.delete", "item_id": "u"},
        {"type": "conversation.item.retrieve", "item_id": "u"},
        {"type": "response.create", "event_id": "e"},
        {"type": "response.create", "response": {**REALTIME, "metadata": {"a": "b"}}},
        {"type": "response.create", "response": {"conversation": "none", "input": ITEMS}},
        {"type": "response.create", "response": {"conversation": "none", "input": ITEMS[:1]}},
        {"type": "response.create", "response": {"conversation": "none"}},
        {"type": "response.cancel"},
    ],
    "/v1/chat": [
        {"type": "send", "trigger": "submit-message", "messages": TURNS[:1], **ASKED},
        {"type": "send", "trigger": "regenerate-message", "messages": TURNS, **ASKED},
        {"type": "resume", **ASKED},
        {"type": "abort", "requestId": "r"},
    ],
    "/v1/agui": [
        {**RUN, "messages": SAID[:1], "forwardedProps": {"seed": 1}},
        {**RUN, "messages": SAID, "resume": [{"interruptId": "client_tool_1", "payload": 1}]},
        {"type": "abort", "runId": "r"},
    ],
}
NAMES = ("self", "type", "id", "response", "fields", "\ud800", "x" * 300)
READY = Ready(protocol="p", server="s", epoch="e", connection="c", models=["m"], limits={})
GONE = Refusal(ErrorCode.NOT_RESUMABLE, "gone")


class ForeignFuzz:
    """A source of inputs for a path, and what has to live with them."""

    def __init__(self, path, seed):
        self.random = random.Random(seed)
        self.counts = Counter()
        (route,) = [one for one in ROUTES if one.path == path]
        self.make = route.prepare(RouteLimits(FrameLimits(depth=20, values=2000)))
        self.good = [json.dumps(one) for one in GOOD[path]]
        self.renew()

    def renew(self):
        self.dialect = self.make(Opening(client="c"))
        self.dialect.greet(READY)
        self.session = Session(new_ticket=lambda: "t", keep_bytes=1024, admit=admit)

    def input(self):
        """Return a message that is nonsense, or nearly what a client sends."""
        text = self.random.choice(self.good)
        choose = self.random.random()
        if choose < 0.1:
            return self.random.randbytes(self.random.randrange(60)).decode("utf-8", "replace")
        if choose < 0.3:
            return text
        if choose < 0.7:
            return json.dumps(self._odd(json.loads(text)))
        data = bytearray(text.encode())
        for _ in range(self.random.randrange(1, 4)):
            at = self.random.randrange(len(data) + 1)
            if self.random.random() < 0.5:
                data[at:at] = self.random.choice(SNIPPETS)
            else:
                del data[at : at + self.random.randrange(8)]
        return data.decode("utf-8", "replace")

    def _odd(self, value):
        """Return data with an odd value somewhere in it."""
        if not value or not isinstance(value, dict | list) or self.random.random() < 0.15:
            return self.random.choice(ODD)
        if isinstance(value, dict) and self.random.random() < 0.1:
            value[self.random.choice(NAMES)] = self.random.choice(ODD)
            return value
        places = list(value) if isinstance(value, dict) else range(len(value))
        place = self.random.choice(places)
        value[place] = self._odd(value[place])
        return value

    def one(self):
        """Try one input."""
        message = self.input()
        try:
            for _ in self.dialect.check(message):
                pass
            requests = self.dialect.decode(message)
        except NotAFrame:
            self.counts["not a frame"] += 1
            return
        except BadFrame as error:
            self.counts["bad frame"] += 1
            self.session.reject(error)
            requests = []
        self.receive(requests)
        self.answer()
        if self.random.random() < 0.02:
            self.dialect.close()
            self.renew()

    def receive(self, requests):
        for request in requests:
            self.counts[type(request).__name__] += 1
            for command in self.session.receive(request, 1.0):
                if isinstance(command, TakeOver):
                    self.session.refuse(request.id, GONE)
                elif isinstance(command, Begin):
                    self.play(command.generation)

    def play(self, generation):
        """Let a generation have an answer, and an end or none."""
        call = ToolCallDelta(0, "x", "f", "{", complete=True)
        for response in (
            GenerateResponse(content="\ud800 text"),
            GenerateResponse(reasoning_trace="hm"),
            GenerateResponse(raw_response=call),
        ):
            generation.respond(response, 1.0)
        choose = self.random.random()
        if choose < 0.5:
            generation.ended(2.0)
        elif choose < 0.7:
            generation.failed(Refusal(ErrorCode.MODEL_ERROR, "broken", fields=("messages[1]",)))
        self.session.enqueue(generation)

    def answer(self):
        """See that what is answered are JSON objects."""
        while self.session.waiting:
            for event in self.session.pop_events()[0]:
                for message in self.dialect.encode(event):
                    assert message.text
                    assert isinstance(json.loads(message.data), dict)
                    self.counts["answers"] += 1
            self.receive(self.dialect.next_requests())

    def run(self, inputs):
        """Try so many; return what they were."""
        for _ in range(inputs):
            self.one()
        return self.counts
