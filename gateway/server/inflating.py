"""Inflates compressed messages in slices, one of all connections in a turn of the event loop.

The library inflates a frame as soon as it has come, up to the largest message in one turn. Here its
extension only marks frames as compressed, and a connection inflates them itself. What is sent is
compressed in one turn, too, so that large messages are sent as they are.

Of the library's inside this module uses `PerMessageDeflate.decoder` and `decode_cont_data`.
"""

from __future__ import annotations

import asyncio
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import (
    PerMessageDeflate,
    ServerPerMessageDeflateFactory,
)
from websockets.frames import CTRL_OPCODES, Frame, Opcode

__all__ = ["SLICE", "Deflate", "DeflateFactory", "Inflation", "Packed", "Slices"]

SLICE = 64 * 1024  # bytes at most that go into, and come out of, the inflating of one turn
LARGE = 128 * 1024  # bytes of a message that is not compressed, which would take some 5 ms
END = b"\x00\x00\xff\xff"  # of a message, which the sender leaves out
# Smaller windows than the largest, as the library's own setting has them, for their memory.
OPTIONS: dict[str, Any] = {
    "server_max_window_bits": 12,
    "client_max_window_bits": 12,
    "compress_settings": {"memLevel": 5},
}


class Packed(Frame):
    """A frame whose content is still compressed."""


class Deflate(PerMessageDeflate):
    """The extension of one connection; what comes in is left compressed."""

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        """Return a frame as it is, marked if it is compressed. Raises ProtocolError."""
        if frame.opcode in CTRL_OPCODES:
            return frame
        if frame.opcode is Opcode.CONT:
            if not self.decode_cont_data:
                return frame
            if frame.rsv1:
                raise ProtocolError("RSV1 bit set in continuation frame")
            self.decode_cont_data = not frame.fin
        elif not frame.rsv1:
            return frame
        else:
            self.decode_cont_data = not frame.fin
        return Packed(frame.opcode, frame.data, frame.fin, rsv2=frame.rsv2, rsv3=frame.rsv3)

    def encode(self, frame: Frame) -> Frame:
        """Compress a frame, unless it is a large message."""
        return frame if frame.fin and len(frame.data) > LARGE else super().encode(frame)

    def renew(self) -> None:
        """Begin a new stream of what comes in."""
        self.decoder = zlib.decompressobj(wbits=-self.remote_max_window_bits)


class DeflateFactory(ServerPerMessageDeflateFactory):
    """Makes the extension of each connection that a client offers compression for."""

    def __init__(self) -> None:
        super().__init__(**OPTIONS)

    def process_request_params(
        self, params: Sequence[Any], accepted_extensions: Sequence[Extension]
    ) -> tuple[list[Any], Deflate]:
        """Negotiate as the library does."""
        agreed, made = super().process_request_params(params, accepted_extensions)
        mine = Deflate(
            made.remote_no_context_takeover,
            made.local_no_context_takeover,
            made.remote_max_window_bits,
            made.local_max_window_bits,
            made.compress_settings,
        )
        return list(agreed), mine


class Inflation:
    """The inflating of one frame to at most `max_size` bytes, with one final block at most."""

    def __init__(self, deflate: Deflate, frame: Packed, max_size: int):
        if frame.opcode is not Opcode.CONT and deflate.remote_no_context_takeover:
            deflate.renew()
        self.size = len(frame.data)  # of what came in, in bytes
        self._frame = frame
        self._deflate = deflate
        self._data = memoryview(bytes(frame.data) + END if frame.fin else frame.data)
        self._at = 0  # where what was not fed yet begins
        self._tail: bytes | memoryview = b""  # what was fed and not consumed
        self._parts: list[bytes] = []
        self._is_final = False  # whether a stream has ended in this frame
        self._max_size = self._left = max_size

    def step(self) -> Frame | None:
        """Inflate a slice; return the frame after the last. Raises PayloadTooBig, ProtocolError."""
        if not self._tail:
            self._tail = self._data[self._at : self._at + SLICE]
            self._at += SLICE
        most = min(SLICE, self._left + 1)
        try:
            part = self._deflate.decoder.decompress(self._tail, most)
        except zlib.error as error:
            raise ProtocolError("decompression failed") from error
        self._tail = self._deflate.decoder.unconsumed_tail
        if self._deflate.decoder.eof:
            self._go_on_behind_final(self._deflate.decoder.unused_data)
        self._left -= len(part)
        if self._left < 0:
            raise PayloadTooBig(None, self._max_size)
        self._parts.append(part)
        # Behind a full slice there may be more, although all was consumed.
        if len(part) == most or self._tail or self._at < len(self._data):
            return None
        if self._frame.fin and self._deflate.remote_no_context_takeover:
            del self._deflate.decoder  # its memory, until there is another message
        return Frame(self._frame.opcode, b"".join(self._parts), self._frame.fin)

    def _go_on_behind_final(self, rest: bytes) -> None:
        """Inflate what follows in a new stream; the one that is over would only keep it.

        A client needs one for a message; each costs more than the two bytes that it takes.
        """
        if self._is_final:
            raise ProtocolError("more than one final block in a frame")
        self._is_final = True
        self._deflate.renew()
        self._tail = rest


class Slices:
    """Lets connections inflate in turns: one slice in each turn of the event loop."""

    def __init__(self) -> None:
        self._steps: deque[Callable[[], bool]] = deque()
        self._is_due = False  # whether `_go_on` is about to be called

    def add(self, step: Callable[[], bool]) -> None:
        """Call `step` in turns to come, until it returns True or raises."""
        self._steps.append(step)
        self._go_on_soon()

    def _go_on_soon(self) -> None:
        if self._steps and not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        self._is_due = False
        step = self._steps.popleft()
        try:
            if not step():
                self._steps.append(step)
        finally:
            self._go_on_soon()  # also where one has failed: the others have nothing to do with it
