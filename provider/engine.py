"""The one thread that owns MLX: mailbox in, events out.

Rule 1: every MLX call is made on the executor's one worker: loading, inserting, stepping,
removing, freeing. Other threads only post to the mailbox and read inboxes.
Rule 2: each turn takes the mailbox, applies cancels, admits, and makes one step. A cancel or a
new run waits for one step, never for a tick.
Rule 3: what a step gave is handed to each event loop at once, by one call a step.
Rule 4: a run ends with exactly one RunFinished or RunFailed, or by a cancel and nothing more.
Rule 5: the thread works only while there is work; idle, it waits in its executor, so that the
interpreter can end at any time.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from provider.backend import clear_streams_at_thread_end
from provider.batch import Batch, Row, StepResult, Token
from provider.interface import (
    GenerationError,
    GenerationStarted,
    GenerationTiming,
    PrefillProgress,
    QueuePosition,
)
from provider.models import LoadedModel
from provider.options import GenerationOptions
from provider.runs import Inbox, RunEvent, RunFailed, RunFinished, RunRequest, TextDelta
from provider.sampling import processors_for, sampler_for
from provider.scheduler import Scheduler
from provider.text import Channel, Piece, TextFormat, TextStream

__all__ = ["DEFAULT_MAX_BATCH", "Engine", "Run"]

DEFAULT_MAX_BATCH = 32  # runs that decode together; beyond it throughput gains little

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Run:
    """One generation inside the engine. After `submit` only the MLX thread writes to it."""

    key: int
    name: str  # of the model
    request: RunRequest
    inbox: Inbox
    text: TextStream | None = None
    ended: bool = False
    tokens: int = 0  # decoded so far, the end token counted
    last_step: int = 0  # the engine's step in which the run last took part
    submitted: float = field(default_factory=time.perf_counter)
    admitted: float = 0.0
    first_token: float = 0.0


class Engine:
    """A model, the batch it decodes, and the thread that does both.

    `loader` runs on that thread. `submit` and `cancel` may be called from any thread and return
    at once.
    """

    def __init__(
        self, name: str, loader: Callable[[], LoadedModel], max_batch: int = DEFAULT_MAX_BATCH
    ):
        self.name = name
        self.steps = 0  # decode and prefill steps made
        self.failures = 0  # steps that raised
        self._loader = loader
        self._max_batch = max_batch
        self._executor = ThreadPoolExecutor(
            max_workers=1,
            thread_name_prefix="mlx-engine",
            initializer=clear_streams_at_thread_end,
        )
        self._lock = threading.Lock()  # guards _working, _closed and the loading
        self._working = False
        self._closed = False
        self._loading: Future[LoadedModel] | None = None
        self._mailbox: deque[_Submit | _Cancel] = deque()
        self._next_key = 0
        # From here on, the MLX thread's own.
        self._model: LoadedModel | None = None
        self._format: TextFormat | None = None
        self._batch: Batch | None = None
        self._scheduler: Scheduler[int] = Scheduler(max_batch)
        self._runs: dict[int, Run] = {}
        self._handover = _Handover()

    # For any thread.

    @property
    def closed(self) -> bool:
        """Whether `close` has been called."""
        return self._closed

    @property
    def busy(self) -> bool:
        """Whether the thread has anything to do."""
        return self._working

    @property
    def runs(self) -> list[Run]:
        """The runs that have not ended, as of now."""
        return list(self._runs.values())

    def load(self) -> Future[LoadedModel]:
        """Load the model, once; the future raises what the loader raised."""
        with self._lock:
            self._refuse_if_closed()
            if self._loading is None or (
                self._loading.done() and self._loading.exception() is not None
            ):
                self._loading = self._executor.submit(self._load)
            return self._loading

    def submit(self, request: RunRequest, inbox: Inbox) -> Run:
        """Enter a run; its events come to `inbox`. Raises GenerationError once closed."""
        with self._lock:
            self._refuse_if_closed()
            self._next_key += 1
            run = Run(self._next_key, self.name, request, inbox)
        self._post(_Submit(run))
        return run

    def cancel(self, run: Run) -> None:
        """Take a run out before the next step; one that has ended already is left alone."""
        if not run.ended:
            self._post(_Cancel(run))

    def close(self) -> None:
        """End every run with an error, free the model on its thread, and join the thread."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._executor.submit(self._free)
        self._executor.shutdown(wait=True)

    def _post(self, message: _Submit | _Cancel) -> None:
        self._mailbox.append(message)
        with self._lock:
            if self._working or self._closed:
                return
            self._working = True
            self._executor.submit(self._work)

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise GenerationError("the provider is closed")

    # The MLX thread's own.

    def _load(self) -> LoadedModel:
        begin = time.perf_counter()
        self._model = self._loader()
        self._format = TextFormat(self._model.tokenizer)
        self._warm_up()
        log.info("loaded `%s` in %.2f s", self.name, time.perf_counter() - begin)
        return self._model

    def _warm_up(self) -> None:
        """Make two tokens, so that no reader waits while mlx compiles its kernels."""
        batch = self._make_batch()
        batch.add([Row(0, [0, 0], 2, sampler_for(GenerationOptions(), 1), [])])
        while len(batch):
            batch.step()
        batch.close()

    def _work(self) -> None:
        """Turn until there is nothing left to do, the engine is closed or the program ends."""
        while threading.main_thread().is_alive():
            self._take_mailbox()
            if len(self._scheduler):
                self._turn()
                self._flush()
            elif self._batch is not None:
                self._batch.settle()
            with self._lock:
                idle = not self._mailbox and not len(self._scheduler)
                if idle or self._closed:
                    self._working = False
                    return
        self._free()  # the program is ending with runs on their way

    def _turn(self) -> None:
        try:
            self._admit()
            self.steps += 1
            assert self._batch is not None
            self._receive(self._batch.step(self._scheduler.prefill_chunk()))
        except Exception as error:  # noqa: BLE001 - the thread must outlive whatever a model does
            self._recover(error)

    def _take_mailbox(self) -> None:
        while self._mailbox:
            match self._mailbox.popleft():
                case _Submit(run):
                    self._runs[run.key] = run
                    self._scheduler.submit(run.key)
                case _Cancel(run):
                    self._end(run)

    def _admit(self) -> None:
        admitted = [self._runs[key] for key in self._scheduler.admit()]
        rows = [row for row in map(self._prepare, admitted) if row is not None]
        if self._batch is None:
            self._batch = self._make_batch()
        self._batch.add(rows)
        for key, position in self._scheduler.moved():
            self._tell(self._runs[key], QueuePosition(position))

    def _prepare(self, run: Run) -> Row | None:
        """Return a run as a row of the batch; None if that failed, which ends the run alone."""
        assert self._model is not None
        assert self._format is not None
        options, prompt = run.request.options, run.request.prompt
        try:
            run.text = TextStream(self._format, prompt, stop=options.stop, tools=run.request.tools)
            row = Row(
                run.key,
                prompt,
                options.max_tokens,
                sampler_for(options, self._model.vocabulary),
                processors_for(options),
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this run's alone
            self._fail(run, error)
            return None
        run.admitted = time.perf_counter()
        self._tell(run, GenerationStarted(run.name, len(prompt), 0))
        return row

    def _make_batch(self) -> Batch:
        assert self._model is not None
        return Batch(self._model.model, self._model.tokenizer.eos_token_ids, self._max_batch)

    def _receive(self, result: StepResult) -> None:
        for key, done, total in result.progress:
            self._tell(self._runs[key], PrefillProgress(done, total))
        advanced = [self._advance(token) for token in result.tokens]
        stopped = [key for key in advanced if key is not None]
        if stopped and self._batch is not None:
            self._batch.remove(stopped)

    def _advance(self, token: Token) -> int | None:
        """Give a run its token; return the run's key if it ended while its row goes on."""
        run = self._runs[token.key]
        self._scheduler.decoding(run.key)
        run.last_step = self.steps
        run.tokens += 1
        if not run.first_token:
            run.first_token = time.perf_counter()
        assert run.text is not None
        try:
            # The end token itself has no text.
            pieces = [] if token.finish == "stop" else run.text.add(token.token)
            if token.finish and not run.text.stopped:
                pieces += run.text.finish()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this run's alone
            self._fail(run, error)
            return run.key
        self._tell(run, *map(_delta, pieces))
        if token.finish or run.text.stopped:
            self._finish(run, "stop" if run.text.stopped else token.finish or "stop")
            return None if token.finish else run.key
        return None

    def _finish(self, run: Run, reason: str) -> None:
        assert run.text is not None
        now = time.perf_counter()
        decode_s = now - run.first_token
        timing = GenerationTiming(
            queue_ms=(run.admitted - run.submitted) * 1000,
            prefill_ms=(run.first_token - run.admitted) * 1000,
            first_token_ms=(run.first_token - run.submitted) * 1000,
            total_ms=(now - run.submitted) * 1000,
            tokens_per_second=(run.tokens - 1) / decode_s if decode_s > 0 else 0.0,
        )
        prompt_tokens = len(run.request.prompt)
        usage = {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": run.tokens,
            "total_tokens": prompt_tokens + run.tokens,
            "cached_tokens": 0,
            "reasoning_tokens": run.text.reasoning_tokens,
        }
        calls = run.text.calls
        reason = "tool_calls" if calls and reason == "stop" else reason
        self._tell(run, RunFinished(reason, usage, timing, calls))
        self._forget(run)

    def _end(self, run: Run) -> None:
        """End a cancelled run: it leaves the batch before the next step."""
        if run.ended:
            return
        if self._batch is not None:
            self._batch.remove([run.key])
        self._forget(run)

    def _fail(self, run: Run, error: Exception) -> None:
        if not isinstance(error, GenerationError):
            log.error("run %d failed", run.key, exc_info=error)
            error = GenerationError(
                f"the generation failed: {type(error).__name__}", original_exception=error
            )
        self._tell(run, RunFailed(error))
        self._forget(run)

    def _forget(self, run: Run) -> None:
        run.ended = True
        self._scheduler.remove(run.key)
        self._runs.pop(run.key, None)

    def _recover(self, error: Exception) -> None:
        """End the runs of a batch whose step raised, and drop it; the queue goes on."""
        self.failures += 1
        batch, self._batch = self._batch, None
        if batch is not None:
            batch.close()
        for run in list(self._runs.values()):
            if run.admitted:
                self._fail(run, error)

    def _tell(self, run: Run, *events: RunEvent) -> None:
        if not run.ended:
            self._handover.add(run, events)

    def _flush(self) -> None:
        for run in self._handover.flush():  # their event loop is gone, and their reader with it
            self._end(run)

    def _free(self) -> None:
        self._take_mailbox()
        for run in list(self._runs.values()):
            self._fail(run, GenerationError("the provider was closed"))
        self._flush()
        if self._batch is not None:
            self._batch.close()
        self._batch = self._model = self._format = None


@dataclass(frozen=True)
class _Submit:
    run: Run


@dataclass(frozen=True)
class _Cancel:
    run: Run


class _Handover:
    """What one step has for the readers, given to each event loop by one call."""

    def __init__(self) -> None:
        self._events: dict[Run, list[RunEvent]] = {}

    def add(self, run: Run, events: Sequence[RunEvent]) -> None:
        if events:
            self._events.setdefault(run, []).extend(events)

    def flush(self) -> list[Run]:
        """Deliver everything; return the runs whose loop is closed."""
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Run, list[RunEvent]]]] = {}
        for run, events in self._events.items():
            if run.inbox.loop is None:
                run.inbox.put(events)
            else:
                by_loop.setdefault(run.inbox.loop, []).append((run, events))
        self._events = {}
        orphans: list[Run] = []
        for loop, deliveries in by_loop.items():
            try:
                loop.call_soon_threadsafe(_deliver, deliveries)
            except RuntimeError:  # the loop is closed
                orphans += [run for run, _ in deliveries]
        return orphans


def _deliver(deliveries: list[tuple[Run, list[RunEvent]]]) -> None:
    for run, events in deliveries:
        run.inbox.put(events)


def _delta(piece: Piece) -> TextDelta:
    return TextDelta(piece.text, reasoning=piece.channel is Channel.REASONING)
