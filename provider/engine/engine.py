"""The engine of one model: messages to the MLX thread in, events of runs out.

Rule 1: other threads only post to the mailbox and read inboxes.
Rule 2: the mailbox is emptied before every turn, so that a cancel or a new run waits for at most
one turn of each model.
Rule 3: while no run streams and new runs are announced, a turn waits up to GATHER_ALL_S for them:
several prompts in one forward pass cost little more than one.
Rule 4: no error of a run ends the engine. An error that can't be traced to one run ends all runs
of the batch, and later runs start with an empty batch.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import assert_never

from provider.engine.delivery import EventDelivery
from provider.engine.inbox import Inbox
from provider.engine.loading import KeptCosts, Loader
from provider.engine.mailbox import Cancel, CollectPrefix, Load, Message, Resume, Submit
from provider.engine.memory_pool import MemoryPool
from provider.engine.messages import RunFailed, RunRequest
from provider.engine.mlx_thread import MlxThread
from provider.engine.model import LoadedModel, LoadProgress, ModelFacts
from provider.engine.run import Run
from provider.engine.sampling import Sampling
from provider.engine.statistics import EngineStatistics
from provider.engine.worker import Worker
from provider.interface import GenerationError, ResourceExceededError
from provider.runtime.mlx import smallest_limit
from provider.settings import EngineSettings
from provider.wording import counted

__all__ = ["Engine", "EngineClosedError", "memory_limit"]

log = logging.getLogger(__name__)

FREED = object()  # stands for the end of the steps of freeing a model
GATHER_S = 0.005  # longest wait of a turn for the next announced run
GATHER_ALL_S = 0.05  # longest wait of a turn for all announced runs


class EngineClosedError(GenerationError):
    """The engine takes no new runs."""


class Engine:
    """A model and its runs, as a lane of the MLX thread (by default a new thread).

    `loader` is called on that thread. `submit`, `cancel` and `resume` may be called from any thread
    and return at once.
    """

    def __init__(
        self,
        name: str,
        loader: Loader,
        settings: EngineSettings | None = None,
        sampling: Sampling | None = None,
        thread: MlxThread | None = None,
        memory: MemoryPool | None = None,
        costs: KeptCosts | None = None,
    ):
        self.name = name
        self.settings = settings or EngineSettings()
        # When the MLX thread began its turn for this engine, in seconds; None between turns.
        self.in_turn_since: float | None = None
        self.restarts = 0  # times the whole batch was lost, to an error that no single run caused
        memory = memory or MemoryPool(memory_limit(self.settings))
        self._worker = Worker(
            name,
            loader,
            self.settings,
            sampling or Sampling(),
            memory,
            disk_done=lambda: self._post(CollectPrefix()),
            costs=costs,
        )
        self._owns_thread = thread is None
        self._thread = thread or MlxThread()
        self._lock = threading.Lock()  # guards the attributes below
        self._closed = False  # whether new runs are refused
        self._ending = False  # whether the remaining runs must be ended too
        self._freed = threading.Event()
        self._next_key = 0
        self._loading: Future[ModelFacts] | None = None
        # Steps of the current loading.
        self._steps: Generator[LoadProgress, None, ModelFacts] | None = None
        self._freeing: Generator[None, None, None] | None = None  # steps of freeing the model
        self._watchers: list[Callable[[LoadProgress], None]] = []
        self._announced = 0  # number of announced runs, whose prompts are being prepared
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
        """The reason why no run can go on, None if there is none; the next run tries again."""
        return self._trouble

    @property
    def busy(self) -> bool:
        """Whether the MLX thread has anything to do for this engine."""
        return self._thread.works_for(self)

    @property
    def model(self) -> LoadedModel | None:
        """The model; only the MLX thread may use it."""
        return self._worker.model

    @property
    def steps(self) -> int:
        """How many turns with work the engine has made."""
        return self._worker.counters.steps

    @property
    def runs(self) -> list[Run]:
        """The runs that have not ended, as of now."""
        return list(self._worker.runs)

    def statistics(self) -> EngineStatistics:
        """Return a snapshot of the engine's numbers, without waiting for the MLX thread."""
        return self._worker.statistics(self.restarts)

    def load(self) -> Future[ModelFacts]:
        """Load the model unless it is loaded or loading; a failed loading is tried again.

        The future raises what the loader raised.
        """
        with self._lock:
            self._refuse_if_closed()
            loading = self._loading
            if loading is not None and not (loading.done() and loading.exception() is not None):
                return loading
            loading = self._loading = Future()
            loading.set_running_or_notify_cancel()  # from now on the future can't be cancelled
            self._mailbox.append(Load())
        self._thread.wake(self)
        return loading

    def watch(self, watcher: Callable[[LoadProgress], None]) -> None:
        """Call `watcher` with the progress of loading, on any thread, until the model is loaded.

        A watcher that raises is logged, and not called again.
        """
        self._watchers.append(watcher)

    def tell(self, progress: LoadProgress) -> None:
        """Pass progress of loading to the watchers; from any thread."""
        for watcher in list(self._watchers):
            try:
                watcher(progress)
            except Exception:
                log.exception("a watcher of the loading of `%s` failed", self.name)
                with suppress(ValueError):  # another thread may have removed it
                    self._watchers.remove(watcher)

    def retire(self) -> bool:
        """If there is no run, refuse new ones from now on; return whether they are refused.

        May be called from any thread. The caller must still call `close`.
        """
        with self._lock:
            if self._worker.runs or self._mailbox or self._announced or self._loads:
                return False
            self._closed = True
            return True

    @contextmanager
    def announced(self) -> Iterator[None]:
        """Note, while the block runs, that a run will come, whose prompt is being prepared."""
        with self._lock:
            self._announced += 1
        try:
            yield
        finally:
            with self._lock:
                self._announced -= 1
            self._arrived.set()

    def submit(self, request: RunRequest, inbox: Inbox) -> Run:
        """Submit a run; its events go to `inbox`.

        Raises EngineClosedError once closed, ResourceExceededError if the queue, or its client's
        share of it, is full (with `retry_after` in seconds in its details), MemoryExceededError if
        the run could never fit.
        """
        self._worker.refuse_if_too_large(request)
        with self._lock:
            self._refuse_if_closed()
            if full := self._full(request.options.client):
                details = {"retry_after": self._worker.retry_after_s()}
                raise ResourceExceededError(f"{full}; try again later", details=details)
            self._next_key += 1
            self._drained.clear()
            run = Run(self._next_key, self.name, request, inbox)
            self._worker.runs.add(run)  # now, so that the queue's limit counts it
            self._mailbox.append(Submit(run))
        self._wake()
        return run

    def _full(self, client: str | None) -> str:
        """Return why a run of a client can't be queued, "" if it can."""
        settings, runs = self.settings, self._worker.runs
        places, live = settings.max_batch + settings.max_queue, len(runs)
        if live >= places:
            return f"{counted(settings.max_queue, 'generation', are=True)} waiting already"
        if client is None or live < settings.max_batch:
            return ""
        own = runs.of_client(client)
        share = max(1, int(settings.queue_share * (places - live + own)))
        return "" if own < share else f"this client has {counted(own, 'generation')} live already"

    def cancel(self, run: Run) -> None:
        """End a run before the next step, without an event; do nothing if it has ended."""
        if not run.ended:
            self._post(Cancel(run))

    def resume(self, run: Run) -> None:
        """Queue a parked run again if its reader has caught up; see `Run.unread`."""
        self._post(Resume(run))

    def lose(self, error: GenerationError) -> None:
        """End every run with an error and refuse new ones, because the MLX thread may hang.

        May be called from any thread. The process must end soon: nothing is freed.
        """
        with self._lock:
            self._closed, self._trouble = True, str(error)
        delivery: EventDelivery[Run] = EventDelivery()
        for run in self.runs:
            delivery.add(run, [RunFailed(error)])
        delivery.flush()

    @property
    def _loads(self) -> bool:
        return self._loading is not None and not self._loading.done()

    def close(self, grace_s: float | None = None) -> None:
        """Refuse new runs, wait for live ones, free the model, and end the engine's own thread.

        Live runs have `grace_s` seconds to end, by default the setting `close_grace`; after that
        they end with an error. Idempotent.
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

    # The methods of a Lane, called on the MLX thread.

    def turn(self, active_models: int) -> None:
        """Make one turn: empty the mailbox, then load a part of the model or make a step."""
        self.in_turn_since = time.monotonic()
        try:
            if self._ending:
                self._end_step()
                return
            self._empty_mailbox()
            if self._steps is not None:
                self._load_step()
            else:
                self._step(active_models)
        except BaseException as error:  # noqa: BLE001 - no caller on the thread can handle it
            self._recover(error)
        finally:
            self.in_turn_since = None

    def idle(self) -> bool:
        """Return whether there is nothing to do until a message is posted."""
        with self._lock:
            if self._mailbox or self._loads or (self._ending and not self._freed.is_set()):
                return False
            if not self._worker.runs:
                self._drained.set()
            return not self._worker.busy

    def fail(self, error: BaseException) -> None:
        """End all runs and the loading with an error, those in the mailbox too."""
        self.restarts += 1
        self._trouble = "recovering from an error"
        while self._mailbox:
            try:
                self._empty_mailbox()
            except BaseException:
                log.exception("a message to the engine failed")
        self._worker.fail_all(_failed(error))
        if self._loads:
            self._loading_failed(_failed(error))

    def end(self) -> None:
        """End all runs with an error and free the model."""
        self._end_step()
        while not self._freed.is_set():
            self._end_step()

    def let_go(self) -> None:
        """End all runs with an error and leave the memory to others; it is freed in later turns.

        What fails is logged: the caller needs the memory for another model.
        """
        try:
            self._end_step()
            while self.model is not None:
                self._end_step()
        except Exception:
            log.exception("`%s` can't be freed", self.name)
        self._thread.wake(self)

    def _end_step(self) -> None:
        """Free a part of the model; the first call ends all runs with an error before that."""
        if self._freed.is_set():
            self._mailbox.clear()  # a late message must not keep the thread busy
            return
        freed = True
        try:
            if self._freeing is None:
                self._freeing = self._worker.freeing()
                self._end_all()
            freed = next(self._freeing, FREED) is FREED
        finally:
            if freed:
                if self._loads:
                    self._loading_failed(GenerationError("the provider was closed"))
                self._freed.set()

    def _end_all(self) -> None:
        with self._lock:
            self._closed = self._ending = True
        self._empty_mailbox()
        self._worker.fail_all(GenerationError("the provider was closed"))
        if self._steps is not None:
            self._steps.close()

    def _load_step(self) -> None:
        assert self._loading is not None
        assert self._steps is not None
        try:
            progress = next(self._steps)
        except StopIteration as end:
            self._steps, self._watchers = None, []
            self._loading.set_result(end.value)
        except BaseException as error:  # noqa: BLE001 - raised by the future of `load`
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
            more = self._worker.save_one()
            while more and active_models == 1 and not self._mailbox:
                more = self._worker.save_one()

    def _recover(self, error: BaseException) -> None:
        log.error("the engine failed, and ended all runs of its batch", exc_info=error)
        self.restarts += 1
        self._trouble = "recovering from an error"
        self._worker.fail_all(_failed(error))
        if self._ending:
            return  # a model would be loaded that nobody frees
        try:
            self._worker.revive()
        except BaseException as again:
            log.exception("the engine cannot recover; it tries again with the next run")
            self._trouble = f"the engine failed: {type(again).__name__}"
        else:
            self._trouble = None

    def _empty_mailbox(self) -> None:
        while self._mailbox:
            self._handle(self._mailbox.popleft())

    def _handle(self, message: Message) -> None:
        match message:
            case Load():
                self._steps = self._worker.loading()
            case Submit(run):
                self._worker.submit(run)
            case Cancel(run):
                self._worker.cancel(run)
            case Resume(run):
                self._worker.resume(run)
            case CollectPrefix():
                self._worker.collect_prefix()
            case _:
                assert_never(message)

    def _gather(self) -> None:
        latest = time.monotonic() + GATHER_ALL_S
        while self._announced and self._worker.busy and not self._worker.streaming:
            self._arrived.clear()
            if not self._mailbox and not self._arrived.wait(GATHER_S):
                return
            self._empty_mailbox()
            if time.monotonic() > latest:
                return


def _failed(error: BaseException) -> GenerationError:
    cause = error if isinstance(error, Exception) else RuntimeError(repr(error))
    return GenerationError("the engine failed", original_exception=cause)


def memory_limit(settings: EngineSettings) -> int:
    """Return how many bytes all models and their KV caches may take together."""
    smallest, given = smallest_limit(), settings.memory_bytes
    most = smallest.room if given is None else given
    if most > smallest.left and not smallest.advice:
        log.warning("`memory_bytes` is %d MiB, which is more than there is", most >> 20)
        most = smallest.left
    log.info("weights and KV caches may take %d MiB; %s", most >> 20, smallest)
    return most
