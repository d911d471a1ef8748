"""A connection between two processes of one model, which notices when the other is lost.

Frames are bytes after their length; an empty one only says that its sender lives. The collectives
of mlx wait for ever for a process that is gone, so this is what ends the others: a closed
connection, or one that has been silent for `SILENCE_S`.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress

__all__ = ["BEAT_S", "SILENCE_S", "Link"]

BEAT_S = 1.0  # seconds between two frames, at most
SILENCE_S = 10.0  # seconds without a frame after which the other process is lost
HEADER = struct.Struct("!I")  # length of a frame


class Link:
    """A connection to another process. `send` may be called from any thread.

    `take` is called with each frame that isn't empty, and `lost` with the reason once the other
    process is lost, both on the link's own thread. If `take` raises, what the other sends is of no
    use, and it counts as lost.
    """

    def __init__(
        self,
        connected: socket.socket,
        take: Callable[[bytes], None],
        lost: Callable[[str], None],
        *,
        beat_s: float = BEAT_S,
        silence_s: float = SILENCE_S,
    ):
        self._socket = connected
        self._take = take
        self._lost = lost
        self._beat_s = beat_s
        self._closed = threading.Event()
        self._sending = threading.Lock()
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.settimeout(silence_s / 2)
        self._threads = [
            threading.Thread(target=work, name=f"shard-{work.__name__.strip('_')}", daemon=True)
            for work in (self._read, self._beat)
        ]

    def start(self) -> None:
        """Begin to read frames, and to show that this process lives."""
        for thread in self._threads:
            thread.start()

    def send(self, frame: bytes) -> None:
        """Send a frame; if that fails, the other process is lost."""
        try:
            with self._sending:
                self._socket.sendall(HEADER.pack(len(frame)) + frame)
        except OSError as error:
            self._end(f"it takes nothing: {error}")

    def close(self) -> None:
        """Close the connection once all that was sent has arrived; no rank is lost by that."""
        self._closed.set()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def _beat(self) -> None:
        while not self._closed.wait(self._beat_s):
            self.send(b"")

    def _read(self) -> None:
        try:
            while True:
                (length,) = HEADER.unpack(self._exactly(HEADER.size))
                if length:
                    self._take(self._exactly(length))
        except TimeoutError:
            self._end("it has been silent for too long")
        except (OSError, EOFError) as error:
            self._end(f"its connection is closed ({error})" if str(error) else "it has ended")
        except Exception as error:  # noqa: BLE001 - without this thread, nobody would notice a loss
            self._end(f"what it sends can't be used: {error}")
        finally:
            with suppress(OSError):
                self._socket.close()

    def _exactly(self, length: int) -> bytes:
        data = bytearray(length)
        view, have = memoryview(data), 0
        while have < length:
            count = self._receive(view[have:])
            if not count:
                raise EOFError
            have += count
        return bytes(data)

    def _receive(self, view: memoryview) -> int:
        try:
            return self._socket.recv_into(view)
        except TimeoutError:
            # If this machine has stood still, the time is over before the other could send.
            return self._socket.recv_into(view)

    def _end(self, reason: str) -> None:
        if not self._closed.is_set():
            self._closed.set()
            self._lost(reason)
