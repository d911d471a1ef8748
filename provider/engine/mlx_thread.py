"""The one thread that owns MLX, and the lanes that it works for: one for each model.

Rule 1: every MLX call is made on the executor's one worker thread. Other threads only wake a lane.
Rule 2: lanes that have something to do take turns, so that no model waits for another's end.
Rule 3: the thread works only while there is work; idle, it waits in its executor, so that the
interpreter can end at any time.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from provider.runtime.mlx import clear_streams_at_thread_end

__all__ = ["Lane", "MlxThread"]


class Lane(Protocol):
    """A user of the thread, such as a model's engine. Its methods run there, and raise nothing."""

    def turn(self, active_models: int) -> None:
        """Make one turn; `active_models` lanes take turns, this one among them."""

    def idle(self) -> bool:
        """Return whether nothing is to be done until it is woken; must not wake a lane."""

    def end(self) -> None:
        """End all work, because the program ends."""


class MlxThread:
    """The MLX thread, started when there is work."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(
            max_workers=1,
            thread_name_prefix="mlx-engine",
            initializer=clear_streams_at_thread_end,
        )
        self._lock = threading.Lock()
        # Lanes with work, in the order in which they were woken.
        self._active: dict[Lane, None] = {}
        self._working = False

    def wake(self, lane: Lane) -> None:
        """Let a lane have its turns until it is idle; from any thread.

        What the lane is to do must be there before it is woken. Raises RuntimeError once closed.
        """
        with self._lock:
            self._active[lane] = None
            if self._working:
                return
            self._working = True
            self._executor.submit(self._work)

    def works_for(self, lane: Lane) -> bool:
        """Return whether a lane has something to do."""
        return lane in self._active

    def close(self) -> None:
        """End the thread, once every lane is idle. Idempotent."""
        self._executor.shutdown(wait=True)

    def _work(self) -> None:
        while threading.main_thread().is_alive():
            with self._lock:
                lanes = list(self._active)
            for lane in lanes:
                lane.turn(len(lanes))
            with self._lock:
                for lane in lanes:
                    if lane.idle():
                        del self._active[lane]
                if not self._active:
                    self._working = False
                    return
        for lane in list(self._active):  # the program ends while runs are live
            lane.end()
