"""The one thread that makes all MLX calls, and the lanes that share it, one for each model.

Rule 1: every MLX call is made on the executor's one thread. Other threads only wake a lane.
Rule 2: lanes with work take turns, so that no model waits until another has finished.
Rule 3: without work, the thread waits in its executor, so that the interpreter can exit.
Rule 4: an error that a lane raises against its contract is logged, and the others go on. A lane
that raises in MAX_RAISED turns in a row is told to fail, and has no more turns until it is woken.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from provider.runtime.mlx import clear_streams_at_thread_end

__all__ = ["Lane", "MlxThread"]

log = logging.getLogger(__name__)

MAX_RAISED = 3  # turns in a row, after which a further one would most likely raise too


class Lane(Protocol):
    """A user of the thread, such as an engine. Its methods run there and must not raise."""

    def turn(self, active_models: int) -> None:
        """Make one turn; `active_models` is the number of lanes with work, this one included."""

    def idle(self) -> bool:
        """Return whether there is no work until the lane is woken; must not wake a lane."""

    def fail(self, error: BaseException) -> None:
        """End all work that was posted, because MAX_RAISED turns in a row have raised.

        `error` is what the last of them has raised. The lane can be woken again.
        """

    def end(self) -> None:
        """End all work, because the program is exiting."""


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
        self._raised: Counter[Lane] = Counter()  # turns in a row that have raised, since woken
        self._working = False

    def wake(self, lane: Lane) -> None:
        """Give a lane turns until it is idle; from any thread.

        Its work must be posted before it is woken. Raises RuntimeError once closed.
        """
        with self._lock:
            self._active[lane] = None
            self._raised.pop(lane, None)
            if self._working:
                return
            self._working = True
            self._executor.submit(self._work)

    def works_for(self, lane: Lane) -> bool:
        """Return whether a lane has work."""
        return lane in self._active

    def close(self) -> None:
        """End the thread, once every lane is idle. Idempotent."""
        self._executor.shutdown(wait=True)

    def _work(self) -> None:
        while threading.main_thread().is_alive():
            with self._lock:
                lanes = list(self._active)
            for lane in lanes:
                self._turn(lane, len(lanes))
            with self._lock:
                for lane in lanes:
                    if lane.idle() or self._raised[lane] >= MAX_RAISED:
                        del self._active[lane]
                        self._raised.pop(lane, None)
                if not self._active:
                    self._working = False
                    return
        for lane in list(self._active):  # the program is exiting while runs are live
            lane.end()

    def _turn(self, lane: Lane, active_models: int) -> None:
        try:
            lane.turn(active_models)
        except BaseException as error:  # as the executor would: nobody reads the future of `_work`
            log.exception("a user of the MLX thread failed; the others go on")
            with self._lock:
                self._raised[lane] += 1
                given_up = self._raised[lane] >= MAX_RAISED
            if given_up:
                self._fail(lane, error)
        else:
            if self._raised:
                with self._lock:
                    self._raised.pop(lane, None)

    def _fail(self, lane: Lane, error: BaseException) -> None:
        try:
            lane.fail(error)
        except BaseException:
            log.exception("a user of the MLX thread can't end its work")
