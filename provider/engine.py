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
from provider.models import LoadedModel
from provider.runs import Inbox, RunRequest
from provider.settings import EngineSettings
from provider.worker import Run, Worker

__all__ = ["Engine"]

log = logging.getLogger(__name__)

GATHER_S = 0.005  # the most that a turn waits for prompts on their way


class Engine:
    """A model, and the thread that runs it.

    `loader` runs on that thread. `submit`, `cancel` and `resume` may be called from any thread and
    return at once.
    """

    def __init__(
        self, name: str, loader: Callable[[], LoadedModel], settings: EngineSettings | None = None
    ):
        self.name = name
        self.settings = settings or EngineSettings()
        self.restarts = 0  # times the batch was lost to an error that was no run's
        self._worker = Worker(name, loader, self.settings)
        self._executor = ThreadPoolExecutor(
            max_workers=1,
            thread_name_prefix="mlx-engine",
            initializer=clear_streams_at_thread_end,
        )
        self._lock = threading.Lock()  # guards what follows, but for the mailbox
        self._working = False
        self._closed = False
        self._next_key = 0
        self._loading: Future[LoadedModel] | None = None
        self._coming = 0  # runs whose prompts are being made
        self._arrived = threading.Event()  # something came into the mailbox
        self._mailbox: deque[Callable[[], None]] = deque()  # what to tell the worker, in order

    @property
    def closed(self) -> bool:
        """Whether `close` has been called."""
        return self._closed

    @property
    def busy(self) -> bool:
        """Whether the thread has anything to do."""
        return self._working

    @property
    def steps(self) -> int:
        """How many turns the thread has made."""
        return self._worker.steps

    @property
    def runs(self) -> list[Run]:
        """The runs that have not ended, as of now."""
        return list(self._worker.runs.values())

    def load(self) -> Future[LoadedModel]:
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

        Raises GenerationError once closed, ResourceExceededError if the queue is full.
        """
        with self._lock:
            self._refuse_if_closed()
            if len(self._worker.runs) >= self.settings.max_batch + self.settings.max_queue:
                raise ResourceExceededError(
                    f"{self.settings.max_queue} generations are waiting already; try again later"
                )
            self._next_key += 1
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

    def close(self) -> None:
        """End every run with an error, free the model on its thread, and join the thread."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._executor.submit(self._free)
        self._executor.shutdown(wait=True)

    def _post(self, message: Callable[[], None]) -> None:
        self._mailbox.append(message)
        self._arrived.set()
        with self._lock:
            if self._working or self._closed:
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
                idle = not self._mailbox and not self._worker.busy
                if idle or self._closed:
                    self._working = False
                    return
        self._free()  # the program is ending with runs on their way

    def _turn(self) -> None:
        try:
            self._take_mailbox()
            self._gather()
            if self._worker.busy:
                self._worker.turn()
            if not self._worker.busy:
                self._worker.rest()
        except Exception as error:
            log.exception("the engine lost its batch")
            self.restarts += 1
            failure = GenerationError("the engine failed", original_exception=error)
            self._worker.fail_all(failure)

    def _take_mailbox(self) -> None:
        while self._mailbox:
            self._mailbox.popleft()()

    def _gather(self) -> None:
        latest = time.monotonic() + GATHER_S
        while self._coming and self._worker.busy and not self._worker.streaming:
            left = latest - time.monotonic()
            if left <= 0:
                return
            self._arrived.wait(left)
            self._arrived.clear()
            self._take_mailbox()

    def _free(self) -> None:
        self._take_mailbox()
        self._worker.fail_all(GenerationError("the provider was closed"))
        self._worker.free()
