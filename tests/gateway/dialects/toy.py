"""A wire language of the tests, as unlike the native one as the gateway has to bear.

Lines of text, `verb NAME rest`. `chat NAME longest=5 TEXT` begins a generation, and so does `slow`,
with a window: each `more NAME` lets its next texts leave. `then` is a `chat` that waits until
nothing runs. `stop *` ends all that runs. A text leaves as two messages, its length in bytes and
itself; what only tells how far something is leaves as none.
"""

import re

from gateway.dialects.base import Dialect, Message, Route
from gateway.protocol.codes import BadFrame, ErrorCode, NotAFrame
from gateway.protocol.events import Failed
from gateway.protocol.frames import Ack, Cancel, Chunk, Done, Generate, Hello, Ping, Pong

NAMES = {"max_tokens": "longest", "prompt": "text", "id": "name"}  # of the fields, in this language


class Toy(Dialect):
    """One connection: it knows which generations run, and what was told last of each."""

    name = "toy.v1.lines"

    def __init__(self):
        self.running = {}  # the newest number that left, by name
        self.waiting = []  # what `then` asks for

    def greet(self, ready):
        return [_line("welcome"), _line(f"models {' '.join(ready.models)}")]

    def check(self, message):
        return iter(())

    def decode(self, message):
        if not isinstance(message, str):
            raise NotAFrame("not a line")
        verb, _, rest = message.partition(" ")
        name, _, rest = rest.partition(" ")
        match verb:
            case "secret":
                return [Hello(token=name)]
            case "secret-and-ping":
                return [Hello(token=name), Ping(nonce=name)]
            case "chat" | "slow":
                generate = self._generate(name, rest, 2 if verb == "slow" else None)
                self.running.setdefault(name, -1)
                return [generate]
            case "then":
                self.waiting.append(self._generate(name, rest, None))
                return self.next_requests()
            case "more":
                return [Ack(id=name, seq=self.running[name])] if name in self.running else []
            case "stop" if name == "*":
                return [Cancel(id=one) for one in self.running]
            case "stop":
                return [Cancel(id=name)]
        raise BadFrame("no such verb", name or None, code=ErrorCode.INVALID_FRAME, fields=("verb",))

    def _generate(self, name, rest, window):
        options = re.match(r"longest=(\S*) ", rest)
        longest = None
        if options:
            rest, longest = rest[options.end() :], options[1]
            if not longest.lstrip("-").isdigit():
                fields = ("max_tokens",)
                raise BadFrame("not a number", name, code=ErrorCode.INVALID_REQUEST, fields=fields)
        return Generate(id=name, prompt=rest, window=window, max_tokens=longest and int(longest))

    def encode(self, event):
        if getattr(event, "seq", None) is not None:
            self.running[event.id] = event.seq
        match event:
            case Chunk(id=name, text=text):
                size = len(text.encode())
                return [_line(f"size {name} {size}"), Message(text.encode(), text=False)]
            case Done(id=name, finish_reason=reason):
                self.running.pop(name, None)
                return [_line(f"end {name} {reason}")]
            case Failed(id=name, code=code, message=message, fields=fields):
                self.running.pop(name, None)
                named = [NAMES.get(field, field) for field in fields]
                about = f"[{','.join(named)}] " if named else ""
                return [_line(f"failed {name} {code} {about}{message.format(*named)}")]
            case Pong(nonce=nonce):
                return [_line(f"pong {nonce}")]
        return []

    def next_requests(self):
        if not self.waiting or self.running:
            return []
        first = self.waiting.pop(0)
        self.running[first.id] = -1
        return [first]


def _line(text):
    return Message(text.encode(), text=True)


def secret_in(offered):
    return next((name.removeprefix("key-") for name in offered if name.startswith("key-")), None)


ROUTE = Route(
    "/toy",
    lambda limits: lambda opening: Toy(),
    subprotocols=("toy.v1.lines",),
    secret_in=secret_in,
    hint="speak lines here",
)
