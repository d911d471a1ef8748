"""Makes token masks on threads of their own, so that a costly one holds up its own row alone.

A mask usually takes less than a tenth of a millisecond, and some take a second. A step of the batch
waits for the masks of its rows, but not for long: a row whose mask is late sits out.
A grammar whose masks have been cheap so far needs no thread, which would take longer to wake up.
Rule 1: a step waits for at most MAX_WAIT_S, and not for rows known to be slow.
Rule 2: slow rows are served by one thread, which makes way for others, their clients in turns.
Rule 3: the masks of a run have a budget. Beyond it the run ends with an error.
Rule 4: what belongs to a grammar is used by one thread at a time, which holds the grammar's lock.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import SimpleQueue
from typing import Any

from provider.constraints.answer import AnswerConstraint
from provider.constraints.fair_queue import FairQueue
from provider.interface import GenerationError

__all__ = ["MaskJob", "MaskMaker"]

MAX_WAIT_S = 0.05  # time of a step for its masks; half of the usual gap while a prompt is read
MAX_SECONDS = 10.0  # processor time of the masks of one run; a usual one takes 0.1 of a second
MAX_SLOW = 4096  # masks that wait for the thread of slow rows, at most one for each row
QUICK_THREADS = 2  # the second goes on where the first is held up by a mask
NICENESS = 10  # of the thread of slow rows, where the system has it for a thread


class MaskJob:
    """The mask of one row for one step: the answer so far, and what may come next."""

    __slots__ = (
        "_answer",
        "_last",
        "_length",
        "client",
        "constraint",
        "done",
        "dropped",
        "error",
        "mask",
    )

    def __init__(
        self,
        constraint: AnswerConstraint,
        answer_so_far: tuple[int, int, Callable[[], Sequence[int]]],
        mask: Any,
        client: str | None = None,
    ):
        self.constraint = constraint
        self.mask = mask
        self.client = client
        self.done = False
        self.dropped = False  # whether nobody waits for it any longer
        self.error: Exception | None = None
        self._length, self._last, self._answer = answer_so_far

    def make(self) -> None:
        """Make the mask; the thread must hold the grammar's lock, if there is a grammar."""
        constraint = self.constraint
        begin = time.thread_time()
        try:
            constraint.follow(self._length, self._last, self._answer)
            if constraint.bound:
                constraint.write(self.mask)
        except Exception as error:  # noqa: BLE001 - the error of its row
            self.error = error
        seconds = time.thread_time() - begin
        constraint.masks += 1
        constraint.mask_seconds += seconds
        constraint.shared.note(seconds)
        if constraint.mask_seconds > MAX_SECONDS:
            self.error = self.error or GenerationError(
                f"the constraint is too costly: its masks have taken {MAX_SECONDS:g} s"
            )
        self.done = True


class _Step:
    """The masks that a step waits for."""

    def __init__(self, jobs: Sequence[MaskJob]):
        self.jobs = deque(jobs)  # not begun
        self.ended = threading.Lock()
        self.ended.acquire()

    def end(self) -> None:
        with suppress(RuntimeError):  # another thread was faster
            self.ended.release()


class MaskMaker:
    """Makes the masks of one batch; the threads are started when they are needed."""

    def __init__(self) -> None:
        self._steps: SimpleQueue[_Step | None] = SimpleQueue()
        self._quick: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._held = 0  # quick threads that work on a step; guarded by the lock
        self._changed = threading.Condition()  # guards the attributes below
        self._slow: FairQueue[MaskJob] = FairQueue(MAX_SLOW, MAX_SLOW)
        self._slow_thread: threading.Thread | None = None
        self._closed = False
        self._late_done = threading.Event()  # set when a late mask is done

    def make(self, jobs: Sequence[MaskJob]) -> None:
        """Make masks; return when they are done, or late. Raises RuntimeError without a thread."""
        quick: list[MaskJob] = []
        for job in jobs:
            if job.constraint.simple:
                job.make()
            elif job.constraint.slow:
                self._put(job)
            elif job.constraint.shared.trusted:
                self._make_at_once(job)
            else:
                quick.append(job)
        if not quick:
            return
        if not self._has_quick_thread():
            for job in quick:
                self._put(job)
            return
        step = _Step(quick)
        self._steps.put(step)
        if not step.ended.acquire(timeout=MAX_WAIT_S):
            self._put_rest(step)

    def wait(self, seconds: float) -> None:
        """Wait until a late mask is done, for so long at most."""
        self._late_done.wait(seconds)
        self._late_done.clear()

    def close(self) -> None:
        """End the threads; a mask that is being made is waited for. Idempotent."""
        with self._changed:
            self._closed = True
            self._slow.clear()
            self._changed.notify()
        for _ in self._quick:
            self._steps.put(None)
        for thread in (*self._quick, self._slow_thread):
            if thread is not None:
                thread.join()
        self._quick = []

    def _put(self, job: MaskJob) -> None:
        with self._changed:
            if self._closed:
                job.error, job.done = GenerationError("the provider is closed"), True
                return
            if self._slow_thread is None:
                self._slow_thread = _started(self._work_slowly)
            self._slow.put(job.client, job)
            self._changed.notify()

    def _put_rest(self, step: _Step) -> None:
        """Let the masks of a step that are not begun be made with those of the slow rows."""
        with suppress(IndexError):
            while True:
                self._put(step.jobs.popleft())

    # The threads.

    def _has_quick_thread(self) -> bool:
        """Return whether a quick thread is free, started if necessary."""
        if self._held < len(self._quick):
            return True
        if len(self._quick) >= QUICK_THREADS:
            return False
        self._quick.append(_started(self._work_quickly))
        return True

    def _work_quickly(self) -> None:
        while (step := self._steps.get()) is not None:
            with self._lock:
                self._held += 1
            with suppress(IndexError):
                while True:
                    self._make_at_once(step.jobs.popleft())
            with self._lock:
                self._held -= 1
            step.end()
            self._late_done.set()

    def _make_at_once(self, job: MaskJob) -> None:
        """Make a mask, unless a slow one of the same grammar is being made."""
        lock = job.constraint.shared.lock
        if not lock.acquire(blocking=False):
            self._put(job)
            return
        try:
            job.make()
        finally:
            lock.release()

    def _work_slowly(self) -> None:
        if sys.platform == "linux":  # where a thread has a priority of its own
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        while (job := self._next_slow()) is not None:
            begin = time.thread_time()
            if not job.dropped:
                with job.constraint.shared.lock:
                    job.make()
                self._late_done.set()
            with self._changed:
                self._slow.took(job.client, time.thread_time() - begin)

    def _next_slow(self) -> MaskJob | None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._slow) > 0)
            return None if self._closed else self._slow.pop()


def _started(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, name="mlx-masks", daemon=True)
    thread.start()
    return thread
