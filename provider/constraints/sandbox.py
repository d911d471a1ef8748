"""Tries out grammars in separate processes, within limits of time and memory; see `trial.py`.

Rule 1: no grammar is compiled in this process before it has passed there. Without such a process,
for whatever reason, it is refused.
Rule 2: a request that waits for such a trial never delays a request that needs none.
Rule 3: a usual grammar takes some milliseconds. One that takes longer is tried again in a process
of its own, so that usual ones do not wait for those that are costly.
Rule 4: clients take turns. The number of waiting trials is bounded, and a trial ends when its
request is cancelled.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field

from provider.constraints import trial
from provider.constraints.fair_queue import FairQueue
from provider.constraints.trial_process import TrialProcess
from provider.interface import GenerationError, ResourceExceededError

__all__ = ["Check", "Sandbox"]

log = logging.getLogger(__name__)

# How nice the process of long trials is, so that these delay neither answers nor first trials on a
# machine of few processors. It gets half the time that others get, so that it ends well within
# MAX_WALL_SECONDS.
NICENESS = 3
FIRST_SECONDS = 0.05  # processor time of a first trial; 3,000 choices or 200 fields take 0.013
MAX_WAITING = 256  # waiting trials; each waits for others of FIRST_SECONDS, a costly one of 2 s
MAX_WAITING_OF_A_CLIENT = 64  # waiting trials of one client, more than a batch has places for
MAX_REMEMBERED = 1024  # grammars whose answer is remembered, by their digests
RETRY_AFTER_S = 1.0

# Given grammars, returns the index of the first that is too expensive, None if all pass.
FirstCostly = Callable[[Sequence[str]], int | None]
Check = Callable[[FirstCostly], None]


class _UnfinishedError(Exception):
    """A first trial has used up its time."""


@dataclass(eq=False)
class _Trial:
    """A check that waits or is being made."""

    check: Check
    client: str | None
    future: Future[None] = field(default_factory=Future)


class _Remembered:
    """What is known of grammars, by their digests."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers: dict[bytes, bool] = {}  # whether a grammar passes, the oldest first

    def get(self, digest: bytes) -> bool | None:
        return self._answers.get(digest)

    def note(self, answers: dict[bytes, bool]) -> None:
        with self._lock:
            self._answers.update(answers)
            while len(self._answers) > MAX_REMEMBERED:
                del self._answers[next(iter(self._answers))]


class Sandbox:
    """Tries out grammars on threads of its own: briefly on one, those that take long on another."""

    def __init__(self) -> None:
        remembered = _Remembered()
        self._long = _Lane(trial.MAX_SECONDS_IN_ALL, remembered, niceness=NICENESS)
        self._quick = _Lane(FIRST_SECONDS, remembered, self._long)

    def submit(self, check: Check, client: str | None = None) -> Future[None]:
        """Run `check` on a thread of the sandbox, in the client's turn; from any thread.

        It is run again if its grammars take long. The future has its result or its error;
        cancelling it ends the trial. It raises ResourceExceededError if there is no process to try
        a grammar in. Raises GenerationError once closed, ResourceExceededError if too many checks
        wait.
        """
        one = _Trial(check, client)
        self._quick.put(one)
        one.future.add_done_callback(lambda future: self._cancel(one, future))
        return one.future

    def close(self) -> None:
        """End the processes and the threads. Idempotent."""
        for lane in (self._quick, self._long):
            lane.close()

    def _cancel(self, one: _Trial, future: Future[None]) -> None:
        if future.cancelled():
            for lane in (self._quick, self._long):
                lane.drop(one)


class _Lane:
    """A queue of checks, and the thread and the process that make them.

    A check gets `seconds` of processor time. One that needs more goes on to the lane `then`;
    without one, it is too expensive.
    """

    def __init__(
        self,
        seconds: float,
        remembered: _Remembered,
        then: _Lane | None = None,
        niceness: int = 0,
    ):
        self._seconds = seconds
        self._remembered = remembered
        self._then = then
        self._changed = threading.Condition()  # guards the attributes below
        self._waiting: FairQueue[_Trial] = FairQueue(MAX_WAITING, MAX_WAITING_OF_A_CLIENT)
        self._current: _Trial | None = None
        self._closed = False
        self._thread: threading.Thread | None = None
        self.process = TrialProcess(niceness)

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, one: _Trial) -> None:
        """Let a check wait. Raises GenerationError once closed, else ResourceExceededError."""
        with self._changed:
            if self._closed:
                raise _closed()
            if not self._waiting.put(one.client, one):
                raise _later("too many constraints wait to be compiled")
            try:
                self._start_thread()
            except RuntimeError as error:  # the system has no more threads
                self._waiting.remove(one.client, one)
                raise _later("a constraint can't be compiled now") from error
            self._changed.notify()

    def drop(self, one: _Trial) -> None:
        """End a check whose request was cancelled."""
        with self._changed:
            self._waiting.remove(one.client, one)
            if self._current is one:
                self.process.kill()

    def close(self) -> None:
        """End the process and the thread. Idempotent."""
        with self._changed:
            self._closed = True
            waiting = self._waiting.clear()
            self.process.kill()
            self._changed.notify()
        for one in waiting:
            _end(one, _closed())
        if self._thread is not None:
            self._thread.join()

    # The thread.

    def _start_thread(self) -> None:
        if self._thread is None:
            thread = threading.Thread(target=self._work, name="mlx-constraints", daemon=True)
            thread.start()
            self._thread = thread

    def _work(self) -> None:
        while (one := self._next()) is not None:
            begin = time.monotonic()
            self._make(one)
            with self._changed:
                self._current = None
                self._waiting.took(one.client, time.monotonic() - begin)
        self.process.stop()

    def _next(self) -> _Trial | None:
        """Wait for a check and return it; return None once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._waiting) > 0)
            self._current = None if self._closed else self._waiting.pop()
            return self._current

    def _make(self, one: _Trial) -> None:
        try:
            one.check(self._first_costly)
        except _UnfinishedError:
            self._pass_on(one)
        except Exception as error:  # noqa: BLE001 - raised by the future
            _end(one, error)
        else:
            _end(one, None)

    def _pass_on(self, one: _Trial) -> None:
        assert self._then is not None
        try:
            self._then.put(one)
        except (GenerationError, ResourceExceededError) as error:
            _end(one, error)
        if one.future.cancelled():
            self._then.drop(one)

    def _first_costly(self, grammars: Sequence[str]) -> int | None:
        """Return the index of the first grammar that is too expensive, None if all pass.

        A malformed grammar passes too, because its later compilation gives the reason. Raises
        ResourceExceededError without a process to try it in, GenerationError once closed or if its
        request was cancelled.
        """
        digests = [hashlib.sha256(grammar.encode()).digest() for grammar in grammars]
        known = [self._remembered.get(digest) for digest in digests]
        costly = [at for at, passes in enumerate(known) if passes is False]
        unknown = [at for at, passes in enumerate(known) if passes is None]
        if not costly and unknown:
            passed, answer = self._try_out([grammars[at] for at in unknown])
            self._remembered.note(dict.fromkeys((digests[at] for at in unknown[:passed]), True))
            if passed < len(unknown):
                if answer == trial.UNFINISHED and self._then is not None:
                    raise _UnfinishedError
                costly = [unknown[passed]]
                # A process that was killed may have been killed for another reason.
                if answer != trial.KILLED:
                    self._remembered.note({digests[costly[0]]: False})
        return min(costly, default=None)

    def _try_out(self, grammars: Sequence[str]) -> tuple[int, str]:
        """Return how many grammars pass before the first that does not, and what it is."""
        try:
            self.process.start()
        except (OSError, RuntimeError) as error:
            log.warning("no process to try out a constraint in: %s", error)
            raise _later("a constraint can't be compiled now") from error
        self._refuse_if_gone()
        passed, answer = self.process.try_out(grammars, self._seconds)
        if answer == trial.KILLED:
            self._refuse_if_gone()
        return passed, answer

    def _refuse_if_gone(self) -> None:
        with self._changed:
            if self._closed:
                raise _closed()
            if self._current is not None and self._current.future.cancelled():
                raise GenerationError("the request has gone")


def _end(one: _Trial, error: Exception | None) -> None:
    with suppress(InvalidStateError):  # cancelled
        if error is None:
            one.future.set_result(None)
        else:
            one.future.set_exception(error)


def _closed() -> GenerationError:
    return GenerationError("the provider is closed")


def _later(said: str) -> ResourceExceededError:
    return ResourceExceededError(f"{said}; try again later", details={"retry_after": RETRY_AFTER_S})
