"""Whatever bytes come: a frame, or the one documented error. `make fuzz` tries 100,000 and more.

Each input goes through a codec into a session that lives on, and what the session answers is
encoded and read again. Anything raised but NotAFrame and BadFrame is a bug. The other languages
have their inputs from foreign_fuzz.py.
"""

import argparse
import json
import random
import sys
import time
from collections import Counter

import msgspec

from gateway.dialects.native import JsonCodec, MsgpackCodec, NativeDialect, server_frame
from gateway.protocol.codes import RETRYABLE, BadFrame, ErrorCode, NotAFrame
from gateway.protocol.events import Failed, Refusal
from gateway.protocol.frames import Ack, Cancel, Error, File, Generate, Hello, Ping, Resume
from gateway.protocol.session import Begin, Session, TakeOver
from provider.interface import GenerateResponse

GOOD = (
    Hello(token="t", client="c"),
    Generate(id="a", prompt="hi"),
    Generate(
        id="b",
        messages=[{"role": "user", "content": [{"type": "text", "text": "§"}]}],
        files=[File(name="a.txt", mime="text/plain", data=b"\x00\xff")],
        tools=[{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
        temperature=0.5,
        stop=["a", "b"],
        logit_bias={"1": 2.0},
        seed=3,
        window=4,
        resumable=True,
    ),
    Cancel(id="a"),
    Ack(id="b", seq=3),
    Resume(id="b", ticket="t", after=-1),
    Ping(nonce=7),
)
FULL = Refusal(ErrorCode.RATE_LIMITED, "full")
ODD = (
    None,
    True,
    -1,
    0,
    2**63,
    -(2**64),
    10**50,
    1e308,
    float("nan"),
    "",
    "x" * 70,
    "\ud800",
    "\x00",
    "😀" * 3,
    [],
    {},
    [[[[]]]],
    {"a": {"b": {"c": []}}},
)
SNIPPETS = (b"\xff", b"\xed\xa0\x80", b"\\ud800", b"9" * 400, b"1e999", b"[" * 2000, b'{"a":' * 500)
SEEDS = {
    JsonCodec: [JsonCodec().encode(frame) for frame in GOOD],
    MsgpackCodec: [MsgpackCodec().encode(frame) for frame in GOOD],
}


def admit(request, live):
    return FULL if live > 4 else None


class Fuzz:
    """A source of inputs, and the session that has to live with them."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.counts = Counter()
        self.renew()

    def renew(self):
        self.session = Session(new_ticket=lambda: "t", keep_bytes=1024, admit=admit)

    def input(self, kind):
        """Return bytes that are nonsense, or nearly a frame."""
        choose = self.random.random()
        if choose < 0.1:
            return self.random.randbytes(self.random.randrange(0, 200))
        if choose < 0.45:
            return self._odd_fields(kind)
        data = bytearray(self.random.choice(SEEDS[kind]))
        if choose < 0.6:
            return bytes(data)
        for _ in range(self.random.randrange(1, 5)):
            at = self.random.randrange(len(data) + 1)
            match self.random.randrange(5):
                case 0 if data:
                    data[at % len(data)] = self.random.randrange(256)
                case 1:
                    del data[at:]
                case 2:
                    del data[at : at + self.random.randrange(8)]
                case 3:
                    data[at:at] = self.random.choice(SNIPPETS)
                case _:
                    data[at:at] = self.random.randbytes(self.random.randrange(4))
        return bytes(data)

    def _odd_fields(self, kind):
        """Return a well-formed frame with odd values in it."""
        if kind is JsonCodec:
            fields = json.loads(self.random.choice(SEEDS[kind]))
            names = [*fields, "id", "seq", "after", "novelty", "\ud800", "window"]
            fields[self.random.choice(names)] = self.random.choice(ODD)
            return json.dumps(fields).encode()
        values = msgspec.msgpack.decode(self.random.choice(SEEDS[kind]))
        values[self.random.randrange(len(values))] = self._fitting()
        values += [self._fitting() for _ in range(self.random.randrange(3))]
        return msgspec.msgpack.encode(values)

    def _fitting(self):
        """Return an odd value that msgpack can hold."""
        while True:
            value = self.random.choice(ODD)
            try:
                msgspec.msgpack.encode(value)
            except (OverflowError, UnicodeEncodeError):
                continue
            return value

    def one(self):
        """Try one input."""
        kind = self.random.choice((JsonCodec, MsgpackCodec))
        codec, data = kind(), self.input(kind)
        given = data
        if kind is JsonCodec:  # as a text message, which the library has decoded
            given = data.decode("utf-8", "replace") if self.random.random() < 0.5 else data
        try:
            frame = codec.decode(given)
        except NotAFrame:
            self.counts["not a frame"] += 1
            return
        except BadFrame as error:
            self.reject(error)
            self.counts["bad frame"] += 1
        else:
            self.counts[type(frame).__name__] += 1
            self.receive(frame)
        self.answer(codec)

    def reject(self, error):
        """Let the session answer what is no good."""
        assert error.frame_id is None or 1 <= len(error.frame_id) <= 64
        assert error.code in RETRYABLE
        self.session.reject(error)

    def receive(self, frame):
        """Let the session have a frame, and a generation that it begins an end or none."""
        for command in self.session.receive(frame, 1.0):
            if isinstance(command, Begin):
                command.generation.respond(GenerateResponse(content="\ud800 text"), 1.0)
                if self.random.random() < 0.8:
                    command.generation.ended(2.0)
                self.session.enqueue(command.generation)
            elif isinstance(command, TakeOver):
                assert command.frame is frame

    def answer(self, codec):
        """See that what is answered can be sent and read."""
        while self.session.waiting:
            for event in self.session.pop_events()[0]:
                (message,) = NativeDialect(codec).encode(event)
                again = server_frame(codec.decode_fields(message.data))
                if isinstance(event, Failed):
                    assert isinstance(again, Error)
                    assert again.message
                else:
                    assert type(again) is type(event)
        if self.random.random() < 0.01:
            self.renew()

    def run(self, inputs):
        """Try so many; return what they were."""
        for _ in range(inputs):
            self.one()
        return self.counts


def main():
    from tests.gateway.dialects.foreign_fuzz import GOOD, ForeignFuzz  # it imports this module

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000, help="for each language")
    parser.add_argument("--seed", type=int, default=None, help="what went wrong before, again")
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(2**32) if given.seed is None else given.seed
    fuzzes = {"/v1/stream": Fuzz(seed), **{path: ForeignFuzz(path, seed) for path in GOOD}}
    for path, fuzz in fuzzes.items():
        report(path, fuzz, given.inputs, seed)


def report(path, fuzz, inputs, seed):
    """Try so many inputs, and say what they were."""
    begin = time.perf_counter()
    try:
        fuzz.run(inputs)
    except BaseException:
        print(f"{path} with --seed {seed}, after {sum(fuzz.counts.values()):,}", file=sys.stderr)
        raise
    seconds = time.perf_counter() - begin
    print(f"{path}: {inputs:,} inputs in {seconds:.0f} s, seed {seed}: nothing undocumented")
    for name, count in fuzz.counts.most_common():
        print(f"  {count:8,} {name}")


if __name__ == "__main__":
    main()
