"""A TCP proxy that does to connections what networks do."""

import asyncio
from contextlib import asynccontextmanager


class Proxy:
    """Forwards to `port`; its faults hold for what is forwarded from now on."""

    def __init__(self, port):
        self.port = port
        self.pause = 0.0  # seconds before each piece
        self.piece = 65536  # bytes at once
        self.stalled = False
        self._going = asyncio.Event()
        self._going.set()
        self._pairs = set()
        self._tasks = set()
        self._server = None

    @property
    def address(self):
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    @property
    def url(self):
        return f"{self.address.replace('http', 'ws')}/v1/stream"

    async def start(self):
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)

    async def stop(self):
        self._server.close()
        self.go_on()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def cut(self):
        """End every connection at once, without a word."""
        for pair in self._pairs:
            for writer in pair:
                writer.transport.abort()

    def stall(self):
        """Forward nothing, and keep everything open: a network that is not there."""
        self._going.clear()

    def go_on(self):
        self._going.set()

    def half_close(self):
        """Tell the gateway that the client will say no more, and go on the other way."""
        for _, towards in self._pairs:
            towards.write_eof()

    async def _accept(self, reader, writer):
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            writer.transport.abort()
            return
        pair = (writer, far_writer)
        self._pairs.add(pair)
        tasks = [
            asyncio.create_task(self._forward(reader, far_writer)),
            asyncio.create_task(self._forward(far_reader, writer)),
        ]
        self._tasks.update(tasks)
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.difference_update(tasks)
        self._pairs.discard(pair)
        for end in pair:
            end.transport.abort()

    async def _forward(self, reader, writer):
        while data := await reader.read(65536):
            for at in range(0, len(data), self.piece):
                await self._going.wait()
                if self.pause:
                    await asyncio.sleep(self.pause)
                writer.write(data[at : at + self.piece])
                await writer.drain()
        if not writer.transport.is_closing() and writer.can_write_eof():
            writer.write_eof()


@asynccontextmanager
async def proxied(gateway):
    proxy = Proxy(gateway.port)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
