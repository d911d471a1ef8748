"""The one thread that owns MLX: mailbox in, events out.

Rule 1: every MLX call is made on the executor's one worker thread, by `Worker`. Other threads only
post to the mailbox and read inboxes.
Rule 2: before every turn the whole mailbox is taken. A cancel or a new run waits for one step,
never for a tick.
Rule 3: while nobody streams, and prompts are known to be on their way, a turn waits a moment for
them: read together they cost little more than one.
Rule 4: the thread works only while there is work; idle, it waits in its executor, so that the
interpreter can end at any time.
Rule 5: the thread outlives whatever a run does. What no run can be blamed for ends the runs that
are there, one error each, and the next ones find an empty batch.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from provider.backend import clear_streams_at_thread_end
from provider.interface import GenerationError, ResourceExceededError
from provider.models import LoadedModel, ModelFacts
from provider.run import Run
from provider.runs import Inbox, RunRequest
from provider.sampling import Sampling
from provider.settings import EngineSettings
from provider.statistics import EngineStatistics
from provider.worker import Worker

__all__ = ["Engine"]

log = logging.getLogger(__name__)

GATHER_S = 0.005  # that a turn waits for the next of the prompts on their way
GATHER_ALL_S = 0.05  # that it waits for all of them


class Engine:
    """A model, and the thread that runs it.

    `loader` runs on that thread. `submit`, `cancel` and `resume` may be called from any thread and
    return at once.
    """

    def __init__(
        self,
        name: str,
        loader: Callable[[], LoadedModel],
        settings: EngineSettings | None = None,
        sampling: Sampling | None = None,
    ):
        self.name = name
        self.settings = settings or EngineSettings()
        self.restarts = 0  # times the batch was lost to an error that was no run's
        self._worker = Worker(name, loader, self.settings, sampling or Sampling())
        self._executor = ThreadPoolExecutor(
            max_workers=1,
            thread_name_prefix="mlx-engine",
            initializer=clear_streams_at_thread_end,
        )
        self._lock = threading.Lock()  # guards what follows, but for the mailbox
        self._working = False
        self._closed = False  # takes no new runs
        self._ending = False  # the runs that are there are ended too
        self._next_key = 0
        self._loading: Future[ModelFacts] | None = None
        self._coming = 0  # runs whose prompts are being made
        self._arrived = threading.Event()  # something came into the mailbox
        self._drained = threading.Event()  # there are no runs
        self._drained.set()
        self._trouble: str | None = None  # why no run can go on, until the thread has recovered
        self._mailbox: deque[Callable[[], None]] = deque()  # what to tell the worker, in order

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
        """Whether the thread has anything to do."""
        return self._working

    @property
    def steps(self) -> int:
        """How many turns the thread has made."""
        return self._worker.counters.steps

    @property
    def runs(self) -> list[Run]:
        """The runs that have not ended, as of now."""
        return list(self._worker.runs.values())

    def statistics(self) -> EngineStatistics:
        """Return one look at the engine's numbers; never waits for the MLX thread."""
        return self._worker.statistics(self.restarts)

    def load(self) -> Future[ModelFacts]:
        """Load the model, once; the future raises what the loader raised."""
        with self._lock:
            self._refuse_if_closed()
            loading = self._loading
            if loading is None or (loading.done() and loading.exception() is not None):
                loading = self._loading = self._executor.submit(self._worker.load)
            return loading

    @contextmanager
    def coming(self) -> Iterator[None]:
        """Announce, around the making of its prompt, that a run is going to be submitted."""
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
        self._post(lambda: self._worker.submit(run))
        return run

    def cancel(self, run: Run) -> None:
        """Take a run out before the next step; one that has ended already is left alone."""
        if not run.ended:
            self._post(lambda: self._worker.cancel(run))

    def resume(self, run: Run) -> None:
        """Say that a parked run's reader has read; see `Run.unread`."""
        self._post(lambda: self._worker.resume(run))

    def close(self, grace_s: float | None = None) -> None:
        """Take no new runs, and end the thread, with the model freed on it.

        Runs that are there have `grace_s` seconds to come to their ends, by default the setting
        `close_grace`; then they get one error each. Idempotent.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._drained.wait(self.settings.close_grace if grace_s is None else grace_s)
        self._ending = True
        self._executor.submit(self._free)
        self._executor.shutdown(wait=True)

    def _post(self, message: Callable[[], None]) -> None:
        self._mailbox.append(message)
        self._arrived.set()
        with self._lock:
            if self._working or self._ending:
                return
            self._working = True
            self._executor.submit(self._work)

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise GenerationError("the provider is closed")

    # On the MLX thread.

    def _work(self) -> None:
        """Turn until there is nothing left to do, the engine is closed or the program ends."""
        while threading.main_thread().is_alive():
            self._turn()
            with self._lock:
                if not self._worker.runs and not self._mailbox:
                    self._drained.set()
                idle = not self._mailbox and not self._worker.busy
                if idle or self._ending:
                    self._working = False
                    return
        self._free()  # the program is ending with runs on their way

    def _turn(self) -> None:
        try:
            self._take_mailbox()
            self._gather()
            if self._trouble is not None:
                self._worker.revive()
                self._trouble = None
            if self._worker.busy:
                self._worker.turn()
            if not self._worker.busy:
                self._worker.rest()
                while not self._mailbox and self._worker.save_one():
                    pass
        except BaseException as error:  # noqa: BLE001 - the thread has nobody to raise it to
            self._recover(error)

    def _recover(self, error: BaseException) -> None:
        log.error("the engine lost its batch", exc_info=error)
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
            self._mailbox.popleft()()

    def _gather(self) -> None:
        latest = time.monotonic() + GATHER_ALL_S
        while self._coming and self._worker.busy and not self._worker.streaming:
            self._arrived.clear()
            if not self._mailbox and not self._arrived.wait(GATHER_S):
                return
            self._take_mailbox()
            if time.monotonic() > latest:
                return

    def _free(self) -> None:
        self._take_mailbox()
        self._worker.fail_all(GenerationError("the provider was closed"))
        self._worker.free()
