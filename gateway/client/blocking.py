"""The client without asyncio, for scripts: an event loop on a thread of its own.

    with SyncClient("http://127.0.0.1:8765/") as client:
        for chunk in client.generate(prompt="Hello"):
            print(chunk.text, end="")

Leaving the loop cancels the generation, and so does Ctrl-C.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, closing
from typing import Any, Generic, Self, TypeVar

from gateway.client.asynchronous import GatewayClient, connect
from gateway.client.run import Run
from gateway.protocol.frames import Chunk, Ready, ToolCall

__all__ = ["LoopThread", "SyncClient"]

T = TypeVar("T")


class _Job(Generic[T]):
    """A coroutine on the loop's thread, and the future with which another thread waits for it."""

    def __init__(self, work: Coroutine[Any, Any, T]):
        self.future: Future[T] = Future()
        self._work = work
        self._task: asyncio.Task[T] | None = None

    # The loop's thread calls the following methods.

    def start(self) -> None:
        """Start the coroutine, unless it was started or cancelled before."""
        if self._task is None and not self.future.done():
            self._task = asyncio.get_running_loop().create_task(self._work)
            self._task.add_done_callback(self._end)

    def cancel(self) -> None:
        """Cancel the coroutine; if it was not started, it never will be."""
        if self._task is not None:
            self._task.cancel()
        else:
            self._work.close()
            self.future.cancel()

    def _end(self, task: asyncio.Task[T]) -> None:
        if task.cancelled():
            self.future.cancel()
        elif (error := task.exception()) is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(task.result())


class LoopThread:
    """An event loop on its own thread; `wait` runs a coroutine there."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self.loop.run_forever, name="gateway-client", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *details: object) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    def wait(
        self, work: Coroutine[Any, Any, T], on_interrupt: Callable[[], object] | None = None
    ) -> T:
        """Run a coroutine and return its result; Ctrl-C cancels it and raises KeyboardInterrupt.

        With `on_interrupt`, each Ctrl-C calls that instead, and the coroutine goes on.
        """
        job = _Job(work)
        while True:
            try:
                # Ctrl-C may come anywhere in here, and leaves open whether the job was started.
                self.loop.call_soon_threadsafe(job.start)
                return job.future.result()
            except KeyboardInterrupt:
                if on_interrupt is None:
                    self.loop.call_soon_threadsafe(job.cancel)
                    raise
                self.loop.call_soon_threadsafe(on_interrupt)


class SyncClient:
    """A client for code without an event loop; a context manager. See `client.connect`."""

    def __init__(self, url: str, **options: Any):
        self._connection: AbstractAsyncContextManager[GatewayClient] = connect(url, **options)
        self._thread = LoopThread()

    def __enter__(self) -> Self:
        """Connect. Raises what `client.connect` raises."""
        self._thread.__enter__()
        try:
            self._client = self._thread.wait(_enter(self._connection))
        except BaseException:
            self._thread.__exit__()
            raise
        return self

    def __exit__(self, *details: object) -> None:
        try:
            self._thread.wait(_exit(self._connection))
        finally:
            self._thread.__exit__()

    @property
    def ready(self) -> Ready:
        """The gateway's `ready` frame."""
        return self._client.ready

    def generate(self, **fields: Any) -> Iterator[Chunk]:
        """Yield the chunks of a generation. Raises GatewayError; closing it cancels."""
        with closing(self.frames(**fields)) as frames:
            for frame in frames:
                if isinstance(frame, Chunk):
                    yield frame

    def frames(self, **fields: Any) -> Generator[Chunk | ToolCall, None, None]:
        """Yield chunks and parts of tool calls. Raises GatewayError; closing it cancels."""
        run = self._client.generate(**fields)
        try:  # Ctrl-C may come once it has started, and before that is known here
            self._thread.wait(_enter(run))
            frames = run.frames()
            while (frame := self._thread.wait(_next(frames))) is not None:
                yield frame
        finally:
            self._thread.wait(_exit(run))

    def answer(self, **fields: Any) -> Run:
        """Return a generation that has ended: `text`, `reasoning`, `tool_calls`, `done`.

        Raises GatewayError.
        """
        return self._thread.wait(self._answer(fields))

    async def _answer(self, fields: dict[str, Any]) -> Run:
        async with self._client.generate(**fields) as run:
            await run.result()
        return run


async def _enter(manager: AbstractAsyncContextManager[T]) -> T:
    return await manager.__aenter__()


async def _exit(manager: AbstractAsyncContextManager[Any]) -> None:
    await manager.__aexit__(None, None, None)


async def _next(frames: AsyncIterator[Chunk | ToolCall]) -> Chunk | ToolCall | None:
    return await anext(frames, None)
