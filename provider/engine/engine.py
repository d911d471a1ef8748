"""One model on the MLX thread: mailbox in, events out.

Rule 1: other threads only post to the mailbox and read inboxes.
Rule 2: before every turn the whole mailbox is taken. A cancel or a new run waits for one step of
each model, never for a tick.
Rule 3: while nobody streams, and prompts are known to be on their way, a turn waits a moment for
them: read together they cost little more than one.
Rule 4: the engine outlives whatever a run does. What no run can be blamed for ends the runs that
are there, one error each, and the next ones find an empty batch.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import assert_never

from provider.engine.inbox import Inbox
from provider.engine.loading import Loader
from provider.engine.mailbox import Cancel, Load, Message, Resume, Submit
from provider.engine.memory_pool import MemoryPool
from provider.engine.messages import RunRequest
from provider.engine.mlx_thread import MlxThread
from provider.engine.model import LoadedModel, LoadProgress, ModelFacts
from provider.engine.run import Run
from provider.engine.sampling import Sampling
from provider.engine.statistics import EngineStatistics
from provider.engine.worker import Worker
from provider.interface import GenerationError, ResourceExceededError
from provider.runtime.mlx import usable_memory
from provider.settings import EngineSettings

__all__ = ["Engine", "EngineClosedError", "memory_limit"]

log = logging.getLogger(__name__)

USABLE = 0.9  # share of the memory for weights and caches; the rest is for a step's own arrays
GATHER_S = 0.005  # wait of a turn for the next announced prompt
GATHER_ALL_S = 0.05  # wait of a turn for all announced prompts


class EngineClosedError(GenerationError):
    """The engine takes no new runs."""


class Engine:
    """A model and its runs; a lane of the MLX thread, its own if none is given.

    `loader` runs on that thread. `submit`, `cancel` and `resume` may be called from any thread and
    return at once.
    """

    def __init__(
        self,
        name: str,
        loader: Loader,
        settings: EngineSettings | None = None,
        sampling: Sampling | None = None,
        thread: MlxThread | None = None,
        memory: MemoryPool | None = None,
    ):
        self.name = name
        self.settings = settings or EngineSettings()
        self.restarts = 0  # times that the batch was lost to an error of no single run
        memory = memory or MemoryPool(memory_limit(self.settings))
        self._worker = Worker(name, loader, self.settings, sampling or Sampling(), memory)
        self._owns_thread = thread is None
        self._thread = thread or MlxThread()
        self._lock = threading.Lock()  # guards the attributes below
        self._closed = False  # whether new runs are refused
        self._ending = False  # whether the remaining runs are ended too
        self._freed = threading.Event()
        self._next_key = 0
        self._loading: Future[ModelFacts] | None = None
        # Steps of the current loading.
        self._steps: Generator[LoadProgress, None, ModelFacts] | None = None
        self._watchers: list[Callable[[LoadProgress], None]] = []
        self._coming = 0  # announced runs, whose prompts are being made
        self._arrived = threading.Event()  # set when the mailbox has got a message
        self._drained = threading.Event()  # set while there are no runs
        self._drained.set()
        self._trouble: str | None = None  # why no run can go on, until the thread has recovered
        self._mailbox: deque[Message] = deque()

    @property
    def closed(self) -> bool:
        """Whether `close` has been called."""
        return self._closed

    @property
    def trouble(self) -> str | None:
        """Why the engine can't be used, None if it can; the next run makes it try again."""
        return self._trouble

    @property
    def busy(self) -> bool:
        """Whether the thread has anything to do for it."""
        return self._thread.works_for(self)

    @property
    def model(self) -> LoadedModel | None:
        """The model, for the MLX thread alone."""
        return self._worker.model

    @property
    def steps(self) -> int:
        """How many turns the thread has made."""
        return self._worker.counters.steps

    @property
    def runs(self) -> list[Run]:
        """The runs that have not ended, as of now."""
        return list(self._worker.runs)

    def statistics(self) -> EngineStatistics:
        """Return one look at the engine's numbers; never waits for the MLX thread."""
        return self._worker.statistics(self.restarts)

    def load(self) -> Future[ModelFacts]:
        """Load the model, once; the future raises what the loader raised."""
        with self._lock:
            self._refuse_if_closed()
            loading = self._loading
            if loading is not None and not (loading.done() and loading.exception() is not None):
                return loading
            loading = self._loading = Future()
            loading.set_running_or_notify_cancel()  # nobody can cancel it
            self._mailbox.append(Load())
        self._thread.wake(self)
        return loading

    def watch(self, watcher: Callable[[LoadProgress], None]) -> None:
        """Call `watcher` with the progress of loading, on any thread, until the model is loaded."""
        self._watchers.append(watcher)

    def tell(self, progress: LoadProgress) -> None:
        """Pass progress of loading to the watchers; from any thread."""
        for watcher in list(self._watchers):
            watcher(progress)

    def retire(self) -> bool:
        """Take no new runs from now on, if there are none; return whether that is so.

        From any thread; `close` is still to be called.
        """
        with self._lock:
            if self._worker.runs or self._mailbox or self._coming or self._loads:
                return False
            self._closed = True
            return True

    @contextmanager
    def coming(self) -> Iterator[None]:
        """Announce a run while its prompt is being made."""
        with self._lock:
            self._coming += 1
        try:
            yield
        finally:
            with self._lock:
                self._coming -= 1
            self._arrived.set()

    def submit(self, request: RunRequest, inbox: Inbox) -> Run:
        """Enter a run; its events come to `inbox`.

        Raises GenerationError once closed, ResourceExceededError if the queue is full (with the
        seconds after which to try again in its details, `retry_after`), MemoryExceededError if the
        run could never fit.
        """
        self._worker.refuse_if_too_large(request)
        with self._lock:
            self._refuse_if_closed()
            if len(self._worker.runs) >= self.settings.max_batch + self.settings.max_queue:
                raise ResourceExceededError(
                    f"{self.settings.max_queue} generations are waiting already; try again later",
                    details={"retry_after": self._worker.retry_after_s()},
                )
            self._next_key += 1
            self._drained.clear()
            run = Run(self._next_key, self.name, request, inbox)
            self._worker.runs.add(run)  # counted from now on
            self._mailbox.append(Submit(run))
        self._wake()
        return run

    def cancel(self, run: Run) -> None:
        """Take a run out before the next step; one that has ended already is left alone."""
        if not run.ended:
            self._post(Cancel(run))

    def resume(self, run: Run) -> None:
        """Let a parked run go on if its reader has caught up; see `Run.unread`."""
        self._post(Resume(run))

    @property
    def _loads(self) -> bool:
        return self._loading is not None and not self._loading.done()

    def close(self, grace_s: float | None = None) -> None:
        """Take no new runs, and free the model; end the thread, if it is the engine's own.

        Runs that are there have `grace_s` seconds to come to their ends, by default the setting
        `close_grace`; then they get one error each. Idempotent.
        """
        with self._lock:
            self._closed = True
            if self._ending:
                return
        self._drained.wait(self.settings.close_grace if grace_s is None else grace_s)
        self._ending = True
        self._wake()
        self._freed.wait()
        self._worker.wait_for_disk()
        if self._owns_thread:
            self._thread.close()

    def _post(self, message: Message) -> None:
        self._mailbox.append(message)
        self._wake()

    def _wake(self) -> None:
        self._arrived.set()
        if not self._freed.is_set():
            self._thread.wake(self)

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise EngineClosedError("the provider is closed")

    # A lane, on the MLX thread.

    def turn(self, active_models: int) -> None:
        """Make one turn: load, or take the mailbox and make a step for all runs."""
        try:
            if self._ending:
                self.end()
                return
            self._take_mailbox()
            if self._steps is not None:
                self._load_step()
            else:
                self._step(active_models)
        except BaseException as error:  # noqa: BLE001 - the thread has nobody to raise it to
            self._recover(error)

    def idle(self) -> bool:
        """Return whether there is nothing to do until something is posted."""
        with self._lock:
            if self._mailbox or self._loads or (self._ending and not self._freed.is_set()):
                return False
            if not self._worker.runs:
                self._drained.set()
            return not self._worker.busy

    def end(self) -> None:
        """End the runs that are there and free the model."""
        if self._freed.is_set():
            return
        with self._lock:
            self._closed = self._ending = True
        try:
            self._take_mailbox()
            self._worker.fail_all(GenerationError("the provider was closed"))
            if self._steps is not None:
                self._steps.close()
            self._worker.free()
        finally:
            if self._loads:
                self._loading_failed(GenerationError("the provider was closed"))
            self._freed.set()

    def _load_step(self) -> None:
        assert self._loading is not None
        assert self._steps is not None
        try:
            progress = next(self._steps)
        except StopIteration as end:
            self._steps, self._watchers = None, []
            self._loading.set_result(end.value)
        except BaseException as error:  # noqa: BLE001 - whoever waits for it is told
            try:
                self._worker.free()
            except Exception:
                log.exception("what was loaded of `%s` can't be freed", self.name)
            self._loading_failed(error)
        else:
            self.tell(progress)

    def _loading_failed(self, error: BaseException) -> None:
        assert self._loading is not None
        self._steps, self._watchers = None, []
        self._loading.set_exception(error)

    def _step(self, active_models: int) -> None:
        if active_models == 1:
            self._gather()
        if self._trouble is not None:
            self._worker.revive()
            self._trouble = None
        if self._worker.busy:
            self._worker.turn(active_models)
        if not self._worker.busy:
            self._worker.rest()
            while active_models == 1 and not self._mailbox and self._worker.save_one():
                pass

    def _recover(self, error: BaseException) -> None:
        log.error("the engine failed, and ended all runs of its batch", exc_info=error)
        self.restarts += 1
        self._trouble = "recovering from an error"
        cause = error if isinstance(error, Exception) else RuntimeError(repr(error))
        self._worker.fail_all(GenerationError("the engine failed", original_exception=cause))
        try:
            self._worker.revive()
        except BaseException as again:
            log.exception("the engine cannot recover; it tries again with the next run")
            self._trouble = f"the engine failed: {type(again).__name__}"
        else:
            self._trouble = None

    def _take_mailbox(self) -> None:
        while self._mailbox:
            self._take(self._mailbox.popleft())

    def _take(self, message: Message) -> None:
        match message:
            case Load():
                self._steps = self._worker.loading()
            case Submit(run):
                self._worker.submit(run)
            case Cancel(run):
                self._worker.cancel(run)
            case Resume(run):
                self._worker.resume(run)
            case _:
                assert_never(message)

    def _gather(self) -> None:
        latest = time.monotonic() + GATHER_ALL_S
        while self._coming and self._worker.busy and not self._worker.streaming:
            self._arrived.clear()
            if not self._mailbox and not self._arrived.wait(GATHER_S):
                return
            self._take_mailbox()
            if time.monotonic() > latest:
                return


def memory_limit(settings: EngineSettings) -> int:
    """Return how many bytes all models together may take, KV caches included."""
    given = settings.memory_bytes
    return int(usable_memory() * USABLE) if given is None else given
