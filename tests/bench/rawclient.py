"""A client that costs little: counts frames and bytes of a gateway's answers, on many sockets.

Run as a process of its own, so that what is measured is the server.
"""

import argparse
import asyncio
import base64
import json
import os
import time


class Counter(asyncio.Protocol):
    """One connection: upgrades, sends messages, counts messages until one holds `last`."""

    def __init__(self, path, messages, last, token=None):
        self.path = path
        self.access = f"Authorization: Bearer {token}\r\n" if token else ""
        self.messages = messages
        self.last = last  # what the last message holds
        self.open = asyncio.get_running_loop().create_future()
        self.ended = asyncio.get_running_loop().create_future()
        self.frames = self.bytes = 0
        self._buffer = b""

    def connection_made(self, transport):
        self.transport = transport
        key = base64.b64encode(os.urandom(16)).decode()
        host = "{}:{}".format(*transport.get_extra_info("peername"))
        transport.write(
            f"GET {self.path} HTTP/1.1\r\nHost: {host}\r\n{self.access}Upgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
            f"Sec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    def start(self):
        for body in self.messages:
            size = len(body)
            head = [0x81, 0x80 | size] if size < 126 else [0x81, 0x80 | 126, *divmod(size, 256)]
            mask = os.urandom(4)
            masked = bytes(b ^ mask[i % 4] for i, b in enumerate(body))
            self.transport.write(bytes(head) + mask + masked)

    def data_received(self, data):
        buffer = self._buffer + data
        if not self.open.done():
            head, found, buffer = buffer.partition(b"\r\n\r\n")
            if not found:
                self._buffer = head
                return
            assert b" 101 " in head.splitlines()[0], head
            self.open.set_result(None)
        at, end = 0, len(buffer)
        frames = 0
        while end - at >= 2:
            size, header = buffer[at + 1], 2
            if size == 126:
                if end - at < 4:
                    break
                size, header = int.from_bytes(buffer[at + 2 : at + 4], "big"), 4
            elif size == 127:
                if end - at < 10:
                    break
                size, header = int.from_bytes(buffer[at + 2 : at + 10], "big"), 10
            if end - at < header + size:
                break
            last = buffer[at + header : at + header + size]
            at += header + size
            self.bytes += size
            frames += 1
            if self.last in last and not self.ended.done():
                self.ended.set_result(None)
        self.frames += frames
        self._buffer = buffer[at:]

    def connection_lost(self, error):
        for future in (self.open, self.ended):
            if not future.done():
                future.set_exception(ConnectionError("the server closed"))


# The path of each language, what asks it for an answer of `WORDS`, and what its last message holds.
LANGUAGES = {
    "native": (
        "/v1/stream",
        ({"type": "generate", "id": "a", "prompt": "WORDS"},),
        b'"type":"done"',
    ),
    "responses": (
        "/v1/responses",
        ({"type": "response.create", "input": "WORDS"},),
        b'"type":"response.completed"',
    ),
    "realtime": (
        "/v1/realtime",
        (
            {
                "type": "conversation.item.create",
                "item": {
                    "type": "message",
                    "role": "user",
                    "content": [{"type": "input_text", "text": "WORDS"}],
                },
            },
            {"type": "response.create"},
        ),
        b'"type":"response.done"',
    ),
    "chat": (
        "/v1/chat",
        (
            {
                "type": "send",
                "requestId": "r",
                "id": "CHAT",
                "trigger": "submit-message",
                "messages": [
                    {"id": "u", "role": "user", "parts": [{"type": "text", "text": "WORDS"}]}
                ],
                "headers": {},
                "body": {},
            },
        ),
        b'{"type":"end"',
    ),
    "agui": (
        "/v1/agui",
        (
            {
                "threadId": "t",
                "runId": "CHAT",
                "messages": [{"id": "u", "role": "user", "content": "WORDS"}],
                "tools": [],
                "state": {},
                "context": [],
            },
        ),
        b'"type":"RUN_FINISHED"',
    ),
}


def asked(messages, words, number):
    """Return the messages of one connection."""
    texts = (json.dumps(message).replace("WORDS", str(words)) for message in messages)
    return [text.replace("CHAT", f"chat-{number}").encode() for text in texts]


async def timed(port, counters):
    """Connect each, then start all at once; return the seconds until all have ended."""
    loop = asyncio.get_running_loop()
    for one in counters:
        await loop.create_connection(lambda one=one: one, "127.0.0.1", port)
        await one.open
    begin = time.perf_counter()
    for one in counters:
        one.start()
    await asyncio.gather(*(one.ended for one in counters))
    seconds = time.perf_counter() - begin
    for one in counters:
        one.transport.abort()
    return seconds


async def run(port, connections, words, language):
    path, messages, last = LANGUAGES[language]
    made = [Counter(path, asked(messages, words, number), last) for number in range(connections)]
    seconds = await timed(port, made)
    frames, size = sum(one.frames for one in made), sum(one.bytes for one in made)
    return {"seconds": seconds, "frames": frames, "bytes": size}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("connections", type=int)
    parser.add_argument("words", type=int)
    parser.add_argument("--language", choices=LANGUAGES, default="native")
    given = parser.parse_args()
    print(json.dumps(asyncio.run(run(**vars(given)))))


if __name__ == "__main__":
    main()
