"""The prompt thread of a model: it loads tokenizers, and builds prompts in steps.

Rule 1: prompts are built in turns that are fair between clients, a few steps each. A prompt whose
caller has gone is dropped before its next step.
Rule 2: a prompt may take `max_seconds` of work in all. One that is over this limit in the middle of
a step, such as in a template that loops, is interrupted by an exception in the thread, and again
if that was lost, in a finalizer or a handler.
Rule 3: closing waits for a bounded time. What can't be interrupted, a call of native code, is then
left behind; the thread is a daemon, so that it does not keep the program from its end.
"""

from __future__ import annotations

import ctypes
import logging
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from provider.constraints.fair_queue import FairQueue
from provider.engine.engine import EngineClosedError
from provider.formats.pieces import Steps
from provider.interface import RequestTimeoutError, ResourceExceededError
from provider.runtime.mlx import clear_streams_at_thread_end

__all__ = ["PromptThread"]

T = TypeVar("T")

CHECKS = 8  # checks for a prompt that takes too long, within the time that one may take
# Prompts that wait, several times as many as the usual queue of runs has places for.
MAX_WAITING, MAX_WAITING_OF_A_CLIENT = 4096, 1024
RETRY_AFTER_S = 1.0
TURN_S = 0.02  # seconds after which another prompt has its turn; most prompts take less
STEP_S = 0.2  # seconds, longer than an ordinary step takes
LAST_S = 0.5  # seconds that an interrupted step has to end before the thread is left behind
RETRY_S = 0.2  # seconds until a step that was interrupted, and goes on, is interrupted again
TRY_S = 0.05  # seconds in which an interruption reaches the thread, if that runs Python code

log = logging.getLogger(__name__)


class _InterruptedError(BaseException):
    """Raised in the thread to end a step; no handler of ordinary errors catches it."""


@dataclass(eq=False)
class _Job:
    """Work of one step if `steps` is None, else the steps of a prompt, which are bounded in time.

    The future of steps can be cancelled until it has a result, the other one never.
    """

    future: Future[Any]
    work: Callable[[], Any] | None = None
    steps: Steps[Any] | None = None
    client: str | None = None
    seconds: float = 0.0  # what its turns have taken
    began: float = 0.0  # when its current turn began, on the monotonic clock
    ended: bool = False  # whether its future has got a result
    # Whether its future is cancelled. To ask the future takes a lock of its own, which an
    # interruption might leave locked.
    cancelled: bool = False
    interrupted: float = 0.0  # when it was last interrupted, on the monotonic clock

    def end(self, result: Any = None, error: BaseException | None = None) -> None:
        """Give the future its result, unless it has one or is cancelled."""
        if self.steps is not None and not self.future.set_running_or_notify_cancel():
            return
        if error is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(result)


class PromptThread:
    """A thread that its first job starts, and that ends with this object.

    Any thread may call the methods.
    """

    def __init__(self, max_seconds: float):
        self._worker = worker = _Worker(max_seconds)
        # Also at the end of the program.
        self._finalizer = weakref.finalize(self, worker.close, 0.0)

    def submit(self, work: Callable[..., T], *arguments: Any) -> Future[T]:
        """Run `work`, which is not limited in time. Raises EngineClosedError."""
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()
        return self._worker.add(_Job(future, lambda: work(*arguments)))

    def build(self, client: str | None, steps: Steps[T]) -> Future[T]:
        """Take `steps`, in turns with those for other clients; cancelling the future ends them.

        The future raises RequestTimeoutError if they take too long, and EngineClosedError once the
        thread is closed, as does this method. Raises ResourceExceededError if too many wait.
        """
        return self._worker.add(_Job(Future(), steps=steps, client=client))

    def close(self, grace_s: float = 0.0) -> None:
        """Refuse new jobs, end the prompts, and wait for other work for `grace_s` seconds."""
        self._worker.close(grace_s)

    def end(self) -> None:
        """Refuse new jobs, and end the thread after the current one; don't wait for that."""
        self._worker.refuse()


class _Worker:
    """What the thread runs; it refers to no PromptThread, which can so be freed meanwhile."""

    def __init__(self, max_seconds: float):
        self._max_seconds = max_seconds
        # Guards the attributes up to the watcher. Reentrant, for a finalizer that runs while it is
        # held.
        self._condition = threading.Condition(threading.RLock())
        self._queue: FairQueue[_Job] = FairQueue(MAX_WAITING, MAX_WAITING_OF_A_CLIENT)
        self._closed = False
        self._thread: threading.Thread | None = None
        self._watcher: threading.Thread | None = None
        self._running: _Job | None = None  # set by the thread
        # Held while an interruption is on its way, so none is where the thread holds it.
        self._interrupting = threading.Lock()
        self._working = threading.Event()  # set while the watch must look
        self._impatient = threading.Event()  # set when whatever runs must end
        self._ended = False  # whether the thread runs nothing any more

    def add(self, job: _Job) -> Future[Any]:
        with self._condition:
            if self._closed:
                raise _unloaded()
            if job.steps is None:
                self._queue.put_back(job.client, job, 0.0)
            elif not self._queue.put(job.client, job):
                raise _too_many()
            if self._thread is None:
                self._thread = self._start("mlx-prompt", self._run)
                self._watcher = self._start("mlx-prompt-watch", self._watch)
            self._condition.notify()
        job.future.add_done_callback(
            lambda future: self._forget(job) if future.cancelled() else None
        )
        return job.future

    def _start(self, name: str, run: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=run, name=name, daemon=True)
        thread.start()
        return thread

    def _forget(self, job: _Job) -> None:
        job.cancelled = True
        with self._condition:
            self._queue.remove(job.client, job)

    def refuse(self) -> None:
        """Refuse new jobs, and end those that wait."""
        with self._condition:
            self._closed = True
            waiting = self._queue.clear()
            self._condition.notify()
        for job in waiting:
            self._end(job, error=_unloaded())

    def close(self, grace_s: float) -> None:
        self.refuse()
        running, thread, watcher = self._running, self._thread, self._watcher
        if running is not None and running.steps is not None:
            self._end(running, error=_unloaded())
            grace_s = STEP_S
        if thread is None or watcher is None or threading.current_thread() in {thread, watcher}:
            return
        thread.join(grace_s)
        self._impatient.set()
        watcher.join(LAST_S)  # it ends when the thread has nothing more to run
        if self._ended:
            thread.join(LAST_S)
        else:
            log.warning("a prompt could not be ended, and its thread is left behind")

    def _end(self, job: _Job, result: Any = None, error: BaseException | None = None) -> None:
        with self._condition:
            ended, job.ended = job.ended, True
        if not ended:
            job.end(result, error)

    # The thread.

    def _run(self) -> None:
        clear_streams_at_thread_end()
        try:
            while self._turn():
                pass
        finally:
            self._ended = True
            self._working.set()

    def _turn(self) -> bool:
        """Give the next job a turn, once there is one; return whether the thread goes on."""
        with self._condition:
            while (job := None if self._closed else self._queue.pop()) is None:
                if self._closed:
                    return False
                self._condition.wait()
        job.began = time.monotonic()
        goes_on = self._take_steps(job)
        took = time.monotonic() - job.began
        job.seconds += took
        if goes_on and job.seconds > self._max_seconds:
            self._end(job, error=self._too_slow())
            goes_on = False
        with self._condition:
            stopped = self._closed or job.cancelled
            if goes_on and not stopped:
                self._queue.put_back(job.client, job, job.seconds)
            self._queue.took(job.client, took)
        if goes_on and stopped:
            self._end(job, error=_unloaded())
        return True

    def _take_steps(self, job: _Job) -> bool:
        """Take steps of a job, and end the job after its last; return whether it goes on."""
        self._working.set()
        try:
            outcome = self._outcome(job)
            self._settle()
        except _InterruptedError:
            self._running = None  # at once, so that there is no other interruption
            self._settle()
            outcome = (None, self._too_slow())
        if outcome is not None:
            self._end(job, *outcome)
        return outcome is None

    def _outcome(self, job: _Job) -> tuple[Any, BaseException | None] | None:
        """Take steps of a job for one turn; return its result or error if they were the last."""
        self._running = job
        try:
            if job.steps is None:
                assert job.work is not None
                return job.work(), None
            while not (self._closed or job.cancelled):
                next(job.steps)
                if time.monotonic() - job.began > TURN_S:
                    break
        except _InterruptedError:
            raise
        except StopIteration as end:
            return end.value, None
        except BaseException as error:  # noqa: BLE001 - raised by the future
            return None, error
        return None

    def _too_slow(self) -> RequestTimeoutError:
        return RequestTimeoutError(
            f"building the prompt took more than the {self._max_seconds:g} s that it may take"
        )

    # Interrupting a step. Only the watch does, and nothing that follows the step is interrupted.

    def _settle(self) -> None:
        """End the time in which the running step may be interrupted."""
        with self._interrupting:
            self._running = None

    def _watch(self) -> None:
        """Interrupt prompts that take too long, and whatever still runs some time after closing."""
        while not self._ended:
            self._working.wait()
            self._working.clear()
            while self._is_working():
                if self._impatient.wait(self._max_seconds / CHECKS):
                    time.sleep(RETRY_S / CHECKS)

    def _is_working(self) -> bool:
        """Return whether a job runs; interrupt it if it takes too long."""
        job = self._running
        if job is None:
            return False
        now = time.monotonic()
        took = job.seconds + now - job.began
        too_long = job.steps is not None and took > self._max_seconds
        if (too_long or self._impatient.is_set()) and now - job.interrupted > RETRY_S:
            job.interrupted = now
            self._interrupt(job)
        return True

    def _interrupt(self, job: _Job) -> None:
        """Raise an exception in the thread, unless it only runs native code for some moments.

        While an exception is on its way, Python before 3.13 looks for it in all threads at every
        call: slowly, and in 3.11 under a tracer for ever, so this calls no Python code meanwhile.
        """
        assert self._thread is not None
        thread, watch = _thread_id(self._thread), _thread_id(threading.current_thread())
        send = ctypes.pythonapi.PyThreadState_SetAsyncExc
        error = ctypes.py_object(_InterruptedError)
        with self._interrupting:
            if self._running is not job:
                return
            until = time.monotonic() + TRY_S
            send(thread, error)
            while self._running is job and time.monotonic() < until:
                time.sleep(0.001)
            send(thread, None)
            try:  # ends the search, which taking back does not
                send(watch, error)
                time.sleep(0)
            except _InterruptedError:
                pass


def _unloaded() -> EngineClosedError:
    return EngineClosedError("the model was unloaded")


def _thread_id(thread: threading.Thread) -> ctypes.c_ulong:
    assert thread.ident is not None
    return ctypes.c_ulong(thread.ident)


def _too_many() -> ResourceExceededError:
    return ResourceExceededError(
        "too many prompts wait to be built; try again later",
        details={"retry_after": RETRY_AFTER_S},
    )
