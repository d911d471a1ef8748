"""What the MLX thread does for one model in each turn: admit, prefill, decode, deliver events.

Rule 1: every method runs on the MLX thread, except those that say "from any thread". MLX is called
here and in the modules that this one imports, nowhere else.
Rule 2: a turn has at most one prefill chunk, then one decode step. The step includes the runs whose
prompt that chunk completed. The mailbox is emptied before each turn.
Rule 3: a run ends with exactly one RunFinished or RunFailed event; a cancelled run ends without.
Rule 4: a run whose reader is `max_unread` tokens behind is parked: it leaves the batch and keeps
its KV cache. When the reader has caught up, the run continues with the same text. A run that yields
its place or its memory to another client's leaves in the same way, and is queued again at once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Sequence

from provider.caches.kinds import size_of
from provider.caches.prefix_cache import PrefixCache
from provider.engine.admission import Admission
from provider.engine.batch import Batch
from provider.engine.blas_threads import ThreadTuner
from provider.engine.delivery import EventDelivery
from provider.engine.ends import failure_of, finished
from provider.engine.loading import RECHECK_S, KeptCosts, Loader, ModelSlot
from provider.engine.logprobs import LogprobRecorder
from provider.engine.memory_pool import MemoryPool
from provider.engine.messages import RunEvent, RunFailed, RunRequest
from provider.engine.model import LoadedModel, LoadProgress, ModelFacts
from provider.engine.pace import Pace
from provider.engine.prompt_reuse import PromptReuse
from provider.engine.prompt_share import PromptShare
from provider.engine.rows import Parked, Row, StepResult, Token, without_frames
from provider.engine.run import Run, Runs
from provider.engine.run_states import RunState, Transition
from provider.engine.sampling import Sampling
from provider.engine.scheduler import Scheduler, may_go_on, must_park
from provider.engine.statistics import Counters, EngineStatistics
from provider.engine.step_share import StepShare
from provider.engine.stored_prefixes import StoredPrefixes
from provider.formats.text_stream import ANSWER_STATE, TextStream
from provider.interface import (
    AnswerTokens,
    GenerationError,
    GenerationStarted,
    PrefillProgress,
    QueuePosition,
    ResourceExceededError,
)
from provider.runtime.mlx import BLAS_THREADS, set_blas_threads, smallest_limit
from provider.settings import EngineSettings

__all__ = ["Worker"]

log = logging.getLogger(__name__)

MASK_WAIT_S = 0.01  # longest wait of a turn in which all rows wait for their masks
TOLD_AT_ONCE = 32  # tokens of an answer whose ids are told together
SUSPICIOUS = 3  # consecutive faults after which the model itself is tested
PREFIX_SHARE = 8  # the room for KV caches divided by this is the default size of the prefix cache


class Worker:
    """A model, the runs on it, and the batch that they share.

    `disk_done` is called on another thread when `collect_prefix` or `save_one` may have something
    to do. `clock` returns seconds, by which passes and turns are timed.
    """

    def __init__(
        self,
        name: str,
        loader: Loader,
        settings: EngineSettings,
        sampling: Sampling,
        memory: MemoryPool,
        disk_done: Callable[[], None],
        clock: Callable[[], float] = time.perf_counter,
        costs: KeptCosts | None = None,
    ):
        self.counters = Counters()
        self.runs = Runs()
        self._sampling = sampling
        self._settings = settings
        self._clock = clock
        self._batch: Batch | None = None
        self._share = StepShare(settings.client_slowdown)
        self._prompts = PromptShare(settings.client_prompt_share)
        self._scheduler = self._new_scheduler()
        self._pace = Pace(settings.max_token_gap, settings.max_prompt_slowdown)
        size = settings.prefix_cache_bytes
        self.prefixes = PrefixCache(smallest_limit().room // PREFIX_SHARE if size is None else size)
        self._reuse = PromptReuse(self.prefixes)
        self._stored = StoredPrefixes(self._reuse, disk_done)
        self._slot = ModelSlot(
            name,
            loader,
            settings,
            memory,
            self._reuse,
            self._pace,
            disk_done,
            costs,
            clock=clock,
            padding=lambda: 0 if self._batch is None else self._batch.padding,
        )
        self._delivery: EventDelivery[Run] = EventDelivery()
        self._tuner = ThreadTuner((1, BLAS_THREADS))
        self._launched: float | None = None  # when a decode step of a stream began, if it may run
        self._faults_in_a_row = 0
        self._seconds_in_batch = 0.0  # moving average of a run's time in the batch

    # Messages of other threads.

    def loading(self) -> Generator[LoadProgress, None, ModelFacts]:
        """Load the model in steps and make its batch; raises what `ModelSlot.steps` raises."""
        facts = yield from self._slot.steps()
        self._batch = self._slot.new_batch()
        return facts

    def save_one(self) -> bool:
        """Save one kept KV cache to disk; return whether there may be more to save."""
        return self.prefixes.save_one()

    def wait_for_disk(self) -> None:
        """Wait until kept KV caches are on disk; from any thread, after the model is freed."""
        self._slot.wait_for_disk()

    def refuse_if_too_large(self, request: RunRequest) -> None:
        """Raise MemoryExceededError if a run could never fit; from any thread."""
        self._admission.refuse_if_too_large(request)

    def retry_after_s(self) -> float:
        """Return the estimated seconds until a place in the batch is free; from any thread."""
        return max(1.0, self._seconds_in_batch / self._settings.max_batch)

    def submit(self, run: Run) -> None:
        """Queue a run; if another run is reading the same prompt for it, wait for that first."""
        run.move(Transition.QUEUE)
        if self._reuse.leads(run):
            self._scheduler.submit(run.key)

    def cancel(self, run: Run) -> None:
        """End a run in whatever state it is, without an event; do nothing if it has ended."""
        if not run.ended:
            self.counters.cancelled += 1
            self._forget(run, Transition.CANCEL)

    def resume(self, run: Run) -> None:
        """Queue a parked run again if its reader has caught up."""
        if run.state is not RunState.PARKED:
            return
        if may_go_on(run, self._settings.max_unread):
            run.move(Transition.RESUME)
            run.inbox.parked = False
            self._scheduler.resume(run.key)

    def collect_prefix(self) -> None:
        """Keep the prefix that was read from disk, and queue the runs that waited for it."""
        self._queue_again([run.key for run in self._stored.collect()])

    @property
    def model(self) -> LoadedModel | None:
        """The model, None until it is loaded; another model may share its weights."""
        return self._slot.model

    @property
    def busy(self) -> bool:
        """Whether any run is in the queue or in the batch."""
        return len(self._scheduler) > 0

    @property
    def streaming(self) -> bool:
        """Whether a run in the batch has delivered a token, so that its reader awaits the next."""
        return self._scheduler.streaming

    def turn(self, active_models: int = 1) -> None:
        """Admit, prefill and decode once, and deliver the events.

        `active_models` is the number of models that take turns on the thread, this one included.
        """
        assert self._batch is not None
        begin = self._clock()
        self.counters.steps += 1
        self._admit()
        self._scheduler.hold(begin)
        # The device finishes a launched decode step before it begins a chunk anyway, so its tokens
        # are delivered first. A first token is delivered now and not a step later, for the TTFT.
        first = self._scheduler.oldest is not None or self._batch.first_token_pending
        if first:
            self._receive(self._batch.collect())
            self._flush()
            if self._launched is not None and active_models == 1:
                self._pace.decoded(self._clock() - self._launched)
            self._prefill(active_models)
        rows, waits = self._scheduler.decoding, self._batch.waits
        self._decode(rows, alone=not first and not waits and active_models == 1)
        self._flush()
        if self._batch.waits and self._scheduler.oldest is None:
            self._slot.masks.wait(MASK_WAIT_S if active_models == 1 else MASK_WAIT_S / 10)
            waits = True
        seconds = self._clock() - begin
        self.counters.step_seconds.add(seconds)
        if first or waits or active_models > 1:
            self._tuner.disturbed()
        elif self._scheduler.streaming:
            self._tuner.took(rows, seconds)
            self._share.took(rows, seconds)
        if self._faults_in_a_row >= SUSPICIOUS:
            self._faults_in_a_row = 0
            self._slot.try_out()

    def rest(self) -> None:
        """Wait for running computations and restore the BLAS threads, before the thread idles."""
        if self._batch is not None:
            self._batch.settle()
        self._launched = None
        set_blas_threads(BLAS_THREADS)

    def fail_all(self, error: Exception) -> None:
        """End every run with an error, except those still in the mailbox; discard the batch."""
        self._discard_batch()
        for run in self.runs:
            if run.ended:  # it was being taken out when the error came
                self._let_go(run)
            elif run.state is not RunState.POSTED:
                self._fail(run, error)
        self._flush()

    def _discard_batch(self) -> None:
        """Replace the batch and its order by empty ones: they may raise again and again."""
        batch, self._batch = self._batch, None
        self._scheduler = self._new_scheduler()
        try:
            if batch is not None:
                batch.remove([run.key for run in self.runs], faulty=True)
        except Exception:
            log.exception("the rows of a batch that is discarded can't be taken out")

    def revive(self) -> None:
        """Make an empty batch after a failure; reload the model if it fails its self-test.

        Raises what the loader raises, and what the reloaded model raises in its self-test.
        """
        self._batch = None
        self._batch = self._slot.revived()

    def statistics(self, restarts: int) -> EngineStatistics:
        """Return a snapshot; from any thread."""
        count, prefixes, runs = self.counters, self.prefixes, self.runs
        parked = [one for one in (run.parked for run in runs) if one is not None]
        return EngineStatistics(
            decoding=runs.count(RunState.DECODING),
            prefilling=runs.count(RunState.READING),
            waiting=runs.count(RunState.POSTED, RunState.WAITING),
            parked=runs.count(RunState.PARKED),
            weights_bytes=self._admission.weights if self.model is not None else 0,
            committed_bytes=self._admission.committed,
            parked_bytes=sum(size_of(one.row.caches or []) for one in parked),
            prefix_bytes=prefixes.nbytes,
            prefix_entries=len(prefixes),
            prefix_hits=prefixes.hits,
            prefix_misses=prefixes.misses,
            prefill_tokens=count.prefill_tokens,
            cached_tokens=count.cached_tokens,
            decode_tokens=count.decode_tokens,
            finished=count.finished,
            cancelled=count.cancelled,
            faults=count.faults,
            parkings=count.parkings,
            restarts=restarts,
            steps=count.steps,
            step_seconds=count.step_seconds.snapshot(),
        )

    def free(self) -> None:
        """Free the model, its batch and its kept KV caches; saving these to disk goes on."""
        for _ in self.freeing():
            pass

    def freeing(self) -> Generator[None, None, None]:
        """Do what `free` does in steps, between which other models may decode."""
        batch, self._batch = self._batch, None
        try:
            if batch is not None:
                batch.close()
        except Exception:
            log.exception("what was launched can't be waited for")
        set_blas_threads(BLAS_THREADS)
        yield from self._slot.freeing()

    # A turn.

    @property
    def _admission(self) -> Admission:
        return self._slot.admission

    def _new_scheduler(self) -> Scheduler[int]:
        runs = self.runs
        return Scheduler(
            self._settings.max_batch,
            lambda key: runs[key].client if key in runs else "",
            self._share,
            self._prompts,
        )

    def _admit(self) -> None:
        yielding = self._scheduler.must_yield()
        if yielding is not None:
            self._yield(self.runs[yielding])
        admission = self._admission
        holding = admission.yielding(self._settings.memory_turn)
        if holding is not None:
            self._yield(self.runs[holding])
        admitted = self._scheduler.admit(
            self._has_room, self._waits_for_disk, lambda: admission.awaited
        )
        for key in admitted:
            run = self.runs[key]
            try:
                self._begin(run)
            except Exception as error:
                if run.ended:
                    raise  # not its own fault: what failed is how it was taken out
                self._fail(run, error)
        if not admitted and admission.awaited is not None:
            self._refuse_if_deadlocked(self.runs[admission.awaited])
        for key, position in self._scheduler.moved():
            self._tell(self.runs[key], QueuePosition(position))

    def _waits_for_disk(self, key: int) -> bool:
        return self._stored.defers(self.runs[key])

    def _has_room(self, key: int) -> bool:
        return self._admission.make(self.runs[key])

    def _refuse_if_deadlocked(self, run: Run) -> None:
        """End a run whose memory can't be freed by waiting, in the end."""
        try:
            self._admission.refuse_if_deadlocked(time.perf_counter())
        except ResourceExceededError as error:
            without_frames(error)
            self._end(run, error)
        if self._admission.deadlocked:
            time.sleep(RECHECK_S)

    def _begin(self, run: Run) -> None:
        """Add a new or parked run to the batch."""
        assert self._batch is not None
        run.move(Transition.ADMIT)
        if run.parked is not None:
            self._continue(run, run.parked)
            return
        run.text = self._text_of(run.request)
        row = run.row = self._row_of(run)
        run.admitted = time.perf_counter()
        total = len(run.request.prompt)
        hit = self._reuse.begin(run, row)
        run.cached = 0 if hit is None else hit.length
        self.counters.cached_tokens += run.cached
        self._tell(run, GenerationStarted(run.name, total, run.cached))
        self._begin_answer(run, row)
        self._queue_again(self._reuse.release(run, hit.caches if hit else None, run.cached))
        left = self._batch.add(row, hit)
        self._note_left(run, left)
        if left == 0:
            self._tell(run, PrefillProgress(total, total))

    def _begin_answer(self, run: Run, row: Row) -> None:
        """Give a run the tokens that its answer begins with, and their text to its reader."""
        options = run.request.options
        for token in options.begun_answer or ():
            row.sequence.append(token)
            self._delivery.add(run, run.add_token(Token(run.key, token, None), 0))
        run.first_token = 0.0
        run.told = run.tokens if options.tell_tokens else None

    def _text_of(self, request: RunRequest) -> TextStream:
        assert self._slot.text_format is not None
        options = request.options
        return TextStream(
            self._slot.text_format,
            state=request.state or ANSWER_STATE,
            after=request.prompt[-1] if options.goes_on else None,
            stop=options.stop,
            tools=request.tools,
        )

    def _row_of(self, run: Run) -> Row:
        model, request, options = self.model, run.request, run.request.options
        assert model is not None
        images = request.images
        return Row(
            run.key,
            list(request.prompt),
            len(request.prompt),
            options.max_tokens,
            self._sampling.sampler(options, model.vocabulary),
            self._sampling.processors(options),
            request.constraint,
            LogprobRecorder(options.top_logprobs) if options.logprobs else None,
            None if images is None else model.model.embed(images),
            request.kind,
            options.client,
        )

    def _continue(self, run: Run, parked: Parked) -> None:
        assert self._batch is not None
        row = parked.row
        run.parked, run.row = None, row
        if parked.pending is not None:  # a token sampled before parking and not delivered
            self._advance(run, self._batch.deliver(parked))
            if run.ended:
                return
        # A parked run's caches may have been evicted for memory.
        taken, run.taken_prefix = run.taken_prefix, None
        hit = self._reuse.find(row, taken) if row.caches is None else None
        if hit is not None:  # it may end where the answers to one prompt begin to differ
            self._queue_again(self._reuse.release(run, hit.caches, hit.length))
        self._note_left(run, self._batch.add(row, hit))

    def _queue_again(self, keys: Sequence[int]) -> None:
        """Put runs at the head of the queue, in the given order."""
        for key in reversed(keys):
            self._scheduler.resume(key)

    def _note_left(self, run: Run, left: int) -> None:
        """Record how many tokens of a run remain to be prefilled; with none left, it decodes."""
        self._scheduler.read(run.key, left)
        if not left:
            self._admission.decode(run.key)
        if left and run.state is RunState.DECODING:
            run.move(Transition.READ_AGAIN)
        elif not left and run.state is RunState.READING:
            run.move(Transition.DECODE)

    def _prefill(self, active_models: int) -> None:
        """Prefill one chunk, if the batch has a prompt to read."""
        assert self._batch is not None
        oldest = self._scheduler.oldest
        if oldest is None:
            return
        budget = self._pace.budget(
            self._row(oldest).done, active_models, streaming=self._scheduler.streaming
        )
        plan = self._scheduler.plan(budget, together=self._batch.together)
        plan = self._batch.affordable(plan)
        runs = [(self.runs[key], self._row(key)) for key, _ in plan]
        plan = self._reuse.in_few_shapes(self._reuse.up_to_boundary(plan, runs), runs)
        before = [self._row(key).done for key, _ in plan]
        set_blas_threads(BLAS_THREADS)
        begin = self._clock()
        result = self._batch.prefill(plan)
        end = self._clock()
        seconds = end - begin
        if not result.failed:
            self._scheduler.prefilled(plan, seconds, end)
            context = sum(before) // len(plan)
            self._pace.prefilled(result.computed, context, seconds, len(plan))
            self._keep_what_was_read(plan)
            self.counters.prefill_tokens += sum(n for _, n in plan)
        self._receive(result)

    def _row(self, key: int) -> Row:
        row = self.runs[key].row
        assert row is not None
        return row

    def _keep_what_was_read(self, plan: Sequence[tuple[int, int]]) -> None:
        for key, _ in plan:
            run, row = self.runs[key], self._row(key)
            self._queue_again(self._reuse.release(run, row.caches, row.done))
            self._reuse.keep_boundary(run, row)

    def _decode(self, rows: int, *, alone: bool) -> None:
        """Make one decode step for all decoding rows, of which there are `rows`.

        `alone` says that this turn had no prefill and that no other model has work; only then is
        the step's time recorded.
        """
        assert self._batch is not None
        set_blas_threads(self._tuner.choose(rows))
        begin = self._clock()
        self._receive(self._batch.decode())
        streaming = self._scheduler.streaming
        self._launched = begin if streaming and not self._batch.waits else None
        if alone and streaming:
            self._pace.decoded(self._clock() - begin)

    def _receive(self, result: StepResult) -> None:
        self.counters.decode_tokens += len(result.tokens)
        # A run that can't be held to its constraint says nothing about the model.
        faults = sum(not isinstance(one, GenerationError) for one in result.faults.values())
        self._faults_in_a_row = 0 if result.tokens else self._faults_in_a_row + faults
        for chunk in result.chunks:
            run = self.runs[chunk.key]
            self._note_left(run, chunk.left)
            assert run.row is not None
            if not run.row.generated:
                total = len(run.request.prompt)
                done = total if chunk.left == 0 else run.row.done
                self._tell(run, PrefillProgress(done, total))
        live = [(self.runs.get(token.key), token) for token in result.tokens]
        advanced = [(run, token) for run, token in live if run is not None]
        self._scheduler.stream(*[token.key for token in result.tokens])
        for run, token in advanced:
            if run.state is not RunState.ENDED:  # an earlier token of the step may have ended it
                self._advance(run, token)
        for key, error in result.faults.items():
            if key in self.runs:  # a run that ended with this step's token is gone
                self._fail(self.runs[key], error)
        limit = self._settings.max_unread
        for run, _ in advanced:
            if must_park(run, limit) and run.state in (RunState.READING, RunState.DECODING):
                self._park(run)

    def _advance(self, run: Run, token: Token) -> None:
        """Add a token to its run and queue the resulting events for delivery."""
        try:
            deltas = run.add_token(token, self.counters.steps)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this run's alone
            self._fail(run, error)
            return
        self._delivery.add(run, deltas)
        assert run.text is not None
        if token.finish or run.text.stopped:
            self._finish(run, "stop" if run.text.stopped else token.finish or "stop")
        elif run.told is not None and run.tokens - run.told >= TOLD_AT_ONCE:
            self._tell_tokens(run, run.told)  # an answer that has ended goes on nowhere

    def _tell_tokens(self, run: Run, told: int) -> None:
        row = self._row(run.key)
        answer = row.sequence[row.prompt_tokens + told : row.prompt_tokens + run.tokens]
        self._tell(run, AnswerTokens(told, tuple(answer)))
        run.told = run.tokens

    def _park(self, run: Run) -> None:
        self._take_out(run)
        run.inbox.parked = True
        self.resume(run)  # the reader may have caught up before it saw `parked`

    def _yield(self, run: Run) -> None:
        """Take a run out of the batch to give its place to another client's run; queue it again."""
        self._take_out(run)
        run.move(Transition.RESUME)
        self._scheduler.resume(run.key)

    def _take_out(self, run: Run) -> None:
        assert self._batch is not None
        run.move(Transition.PARK)
        run.parked = self._batch.park(run.key)
        run.sought_on_disk = False
        self._admission.park(run)
        self.counters.parkings += 1
        self._scheduler.park(run.key)

    # Ends.

    def _finish(self, run: Run, reason: str) -> None:
        now = time.perf_counter()
        self.counters.finished += 1
        self._seconds_in_batch += 0.1 * (now - run.admitted - self._seconds_in_batch)
        self._tell(run, finished(run, reason, now))
        self._forget(run, Transition.FINISH)

    def _fail(self, run: Run, error: Exception) -> None:
        self._end(run, failure_of(run, error), faulty=True)

    def _end(self, run: Run, error: Exception, *, faulty: bool = False) -> None:
        self.counters.faults += 1
        self._tell(run, RunFailed(error))
        self._forget(run, Transition.FAIL, faulty=faulty)

    def _forget(self, run: Run, end: Transition, *, faulty: bool = False) -> None:
        self._queue_again(self._reuse.forget(run))
        run.move(end)
        run.parked, run.row = None, None
        try:
            if self._batch is not None:
                self._batch.remove([run.key], faulty=faulty)
        finally:
            self._let_go(run)

    def _let_go(self, run: Run) -> None:
        self._admission.release(run.key)
        self._scheduler.remove(run.key)
        self.runs.remove(run)

    def _tell(self, run: Run, *events: RunEvent) -> None:
        if not run.ended:
            self._delivery.add(run, events)

    def _flush(self) -> None:
        for run in self._delivery.flush():  # runs whose reader's event loop is closed
            self.cancel(run)
