"""A client that keeps the WebSocket's framing and no other rule, and costs little to run."""

import asyncio
import base64
import struct
import time
import zlib
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from gateway.protocol.frames import JSON_PROTOCOL

TEXT, BINARY, CLOSE, PING = 0x1, 0x2, 0x8, 0x9
GONE = (OSError, EOFError, asyncio.IncompleteReadError, TimeoutError)
STRANGER, MALLORY, CAPPED = None, "mallory", "capped"  # whose token is shown


@dataclass(frozen=True)
class Target:
    """A gateway to attack: where it is, which tokens it takes, and how long to go on."""

    port: int
    tokens: dict[str, str]
    seconds: float
    seed: int = 0  # of what is picked at random
    only: tuple[str, ...] = ()  # what is picked from, all attacks if it is empty

    def authorization(self, who):
        return {"Authorization": f"Bearer {self.tokens[who]}"} if who in self.tokens else {}

    def deadline(self):
        return time.monotonic() + self.seconds  # which is the event loop's clock, too


def framed(payload, opcode=TEXT, *, compressed=False):
    """Return a client's frame, masked with zeros, so that its bytes are sent as they are."""
    first = bytes([0x80 | (0x40 if compressed else 0) | opcode])
    size = len(payload)
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 1 << 16:
        length = bytes([0x80 | 126]) + struct.pack(">H", size)
    else:
        length = bytes([0x80 | 127]) + struct.pack(">Q", size)
    return first + length + bytes(4) + payload


def deflated(payload):
    """Return the payload of a compressed message, as RFC 7692 has it."""
    squeezed = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = squeezed.compress(payload) + squeezed.flush(zlib.Z_SYNC_FLUSH)
    return data.removesuffix(b"\x00\x00\xff\xff")


def generate(name="a", **given):
    """Return a `generate` frame in JSON."""
    return framed(msgspec.json.encode({"type": "generate", "id": name, **given}))


class Socket:
    """One WebSocket connection."""

    def __init__(self, reader, writer):
        self._reader = reader
        self.writer = writer

    @classmethod
    async def open(
        cls,
        target,
        who=MALLORY,
        *,
        protocol=JSON_PROTOCOL,
        compressed=False,
        headers=(),
        address="127.0.0.1",
        path="/v1/stream",
    ):
        """Connect from an address and upgrade. Raises one of GONE if that is refused."""
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", target.port, local_addr=(address, 0)
        )
        given = {
            "Host": "localhost",
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": base64.b64encode(bytes(16)).decode(),
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Protocol": protocol,
            **target.authorization(who),
            **dict(headers),
        }
        if compressed:
            given["Sec-WebSocket-Extensions"] = "permessage-deflate; client_no_context_takeover"
        writer.write(_request(path, given))
        status = await reader.readline()
        if b" 101 " not in status:
            writer.transport.abort()
            raise ConnectionRefusedError(status.decode().strip() or "closed")
        await reader.readuntil(b"\r\n\r\n")
        return cls(reader, writer)

    async def send(self, frame):
        self.writer.write(frame)
        await self.writer.drain()

    async def receive(self):
        """Return the opcode and the payload of the next frame. Raises one of GONE."""
        first, second = await self._reader.readexactly(2)
        size = second & 0x7F
        if size == 126:
            size = int.from_bytes(await self._reader.readexactly(2), "big")
        elif size == 127:
            size = int.from_bytes(await self._reader.readexactly(8), "big")
        return first & 0xF, await self._reader.readexactly(size)

    @staticmethod
    def kind_of(opcode, payload):
        """Return what a frame is: its type, and its code if it has one."""
        if opcode == CLOSE:
            return f"closed {int.from_bytes(payload[:2], 'big')}"
        if opcode != TEXT or not payload.startswith(b"{"):
            return "other"
        frame = msgspec.json.decode(payload)
        return f"{frame['type']} {frame.get('code', '')}".strip()

    async def until(self, *kinds, deadline):
        """Return the next JSON frame of one of these types, or of the close. Raises GONE."""
        async with asyncio.timeout_at(deadline):
            while True:
                opcode, payload = await self.receive()
                if opcode == CLOSE:
                    code = int.from_bytes(payload[:2], "big")
                    return {"type": "close", "code": code}
                if opcode == TEXT and payload.startswith(b"{"):
                    frame = msgspec.json.decode(payload)
                    if frame["type"] in kinds:
                        return frame

    async def ignore(self, deadline):
        """Read and forget, until the connection or the time ends; return how many bytes."""
        count = 0
        with suppress(*GONE):
            async with asyncio.timeout_at(deadline):
                while data := await self._reader.read(1 << 18):
                    count += len(data)
        return count

    def abort(self):
        self.writer.transport.abort()


async def get(target, path, who=STRANGER, **headers):
    """Return the status of a plain GET, 0 if there is none."""
    given = {"Host": "localhost", **target.authorization(who), **headers}
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
    except OSError:
        return 0
    try:
        writer.write(_request(path, given))
        status = await reader.readline()
        await reader.read()
        return int(status.split()[1])
    except (*GONE, IndexError, ValueError):
        return 0
    finally:
        writer.transport.abort()


def _request(path, headers):
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()
