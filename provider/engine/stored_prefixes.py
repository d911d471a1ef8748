"""Reads stored prefixes from disk for runs that could begin, while other runs go on.

Rule 1: only the MLX thread calls it. The file is read on a thread of the store; `on_read` is
called there when that is done, and must let the MLX thread call `collect`.
Rule 2: a run waits outside the queue, so that no other run waits behind it.
Rule 3: a run waits for one file at most, and then begins with what is in memory.
Rule 4: one file is read at a time, which bounds the bytes in memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from provider.caches.prefix_store import Stored
from provider.engine.prompt_reuse import PromptReuse
from provider.engine.run import Run

__all__ = ["StoredPrefixes"]


@dataclass(frozen=True, eq=False)
class _Reading:
    """A file that is being read for a run."""

    run: Run
    stored: Stored
    data: Future[bytes | None]


class StoredPrefixes:
    """The runs of one model that wait for prefixes on disk."""

    def __init__(self, reuse: PromptReuse, on_read: Callable[[], None]):
        self._reuse = reuse
        self._on_read = on_read
        self._reading: _Reading | None = None
        self._waiting: deque[Run] = deque()  # runs for which nothing is read yet

    def defers(self, run: Run) -> bool:
        """Return whether a run waits for the disk; then `collect` returns it some time later.

        The first call for a run begins to read the file that it needs. Once `collect` has returned
        the run, it does not wait again.
        """
        if run.sought_on_disk:
            return False
        run.sought_on_disk = True
        if self._reuse.on_disk(run) is None:
            return False
        self._waiting.append(run)
        return run not in self._begin()

    def collect(self) -> list[Run]:
        """Keep the prefix that was read; return the runs that can begin, in order of `defers`."""
        reading = self._reading
        if reading is None or not reading.data.done():
            return []
        self._reading = None
        data = reading.data.result()
        if data is not None and not reading.run.ended:  # otherwise the model may be unloaded
            number = self._reuse.prefixes.add_stored(reading.stored, data)
            reading.run.read_prefix = number
        return [run for run in (reading.run, *self._begin()) if not run.ended]

    def _begin(self) -> list[Run]:
        """Begin to read the file of the first run that needs one; return the runs before it."""
        ready = []
        while self._waiting and self._reading is None:
            run = self._waiting.popleft()
            self._reading = None if run.ended else self._read_for(run)
            if self._reading is None:
                ready.append(run)
        return ready

    def _read_for(self, run: Run) -> _Reading | None:
        store, stored = self._reuse.prefixes.store, self._reuse.on_disk(run)
        if store is None or stored is None:
            return None
        try:
            data = store.read(stored)
        except RuntimeError:  # the store is closed, or the program is exiting
            return None
        data.add_done_callback(lambda _: self._on_read())
        return _Reading(run, stored, data)
