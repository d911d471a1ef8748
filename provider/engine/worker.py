"""What the MLX thread does, turn by turn: admit, decode, read a chunk, hand over.

Rule 1: every method is called on the MLX thread, and every MLX call is made here or below.
Rule 2: each turn is at most one chunk of prefill and one decode step for all, those whose prompt
was read just now among them; what was posted since the last turn is applied before it.
Rule 3: a run ends with exactly one RunFinished or RunFailed, or by a cancel and nothing more.
Rule 4: a run whose reader leaves the text of `max_unread` tokens waiting is parked: out of the
batch, its KV cache kept, its slot free. It goes on, with the same text, when the reader has caught
up.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import Any

from provider.caches.kinds import size_of
from provider.caches.prefix_cache import LEAST_TOKENS, PrefixCache
from provider.caches.prefix_store import PrefixStore
from provider.engine.admission import Admission
from provider.engine.batch import Batch
from provider.engine.blas_threads import ThreadTuner
from provider.engine.delivery import EventDelivery
from provider.engine.logprobs import LogprobRecorder
from provider.engine.memory_pool import MemoryPool
from provider.engine.messages import RunEvent, RunFailed, RunFinished, RunRequest
from provider.engine.model import LoadedModel, Loading, LoadProgress, ModelFacts
from provider.engine.pace import MOST_CHUNK, Pace
from provider.engine.rows import Parked, Row, StepResult, Token, without_frames
from provider.engine.run import Run, Runs
from provider.engine.run_states import RunState, RunStep
from provider.engine.sampling import Sampling, sampler_for
from provider.engine.scheduler import Scheduler
from provider.engine.shared_prompt import SharedPrompt
from provider.engine.speculative import SingleRowSettings
from provider.engine.statistics import Counters, EngineStatistics
from provider.formats.text_stream import ANSWER_STATE, TextFormat, TextStream
from provider.interface import (
    GenerationError,
    GenerationStarted,
    ModelLoadingError,
    PrefillProgress,
    QueuePosition,
    ResourceExceededError,
)
from provider.options import GenerationOptions
from provider.runtime.mlx import BLAS_THREADS, set_blas_threads, usable_memory
from provider.settings import EngineSettings

__all__ = ["Loader", "Worker"]

SUSPICIOUS = 3  # consecutive faults after which the model itself is tested
PREFIX_SHARE = 8  # divisor of the usable memory that gives the prefix cache's part

# Returns steps where other models get their turns in between.
Loader = Callable[[], LoadedModel | Loading]
STUCK_S = 0.01  # pause between looks at memory that no run will free

log = logging.getLogger(__name__)


class Worker:
    """A model, the runs on it, and the batch that they share."""

    def __init__(
        self,
        name: str,
        loader: Loader,
        settings: EngineSettings,
        sampling: Sampling,
        memory: MemoryPool,
    ):
        self.name = name
        self._sampling = sampling
        self.counters = Counters()
        self.runs = Runs()
        self._loader = loader
        self._settings = settings
        self._model: LoadedModel | None = None
        self._format: TextFormat | None = None
        self._batch: Batch | None = None
        self._scheduler: Scheduler[int] = Scheduler(settings.max_batch)
        self._pace = Pace(settings.max_token_gap)
        size = settings.prefix_cache_bytes
        self.prefixes = PrefixCache(usable_memory() // PREFIX_SHARE if size is None else size)
        self._delivery: EventDelivery[Run] = EventDelivery()
        self._tuner = ThreadTuner((1, BLAS_THREADS))
        self._faults_in_a_row = 0
        self._memory = memory
        self._admission = Admission(memory, 0, self.prefixes, self._keep)
        # Runs that can't get their memory.
        self._stuck: list[tuple[Run, ResourceExceededError]] = []
        self._single_row = SingleRowSettings()
        self._seconds_in_batch = 0.0  # moving average of a run's time in the batch

    # What the thread is told.

    def load(self) -> ModelFacts:
        """Do what `loading` does, to its end."""
        steps = self.loading(waits=False)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]

    def loading(self, *, waits: bool = True) -> Generator[LoadProgress, None, ModelFacts]:
        """Load the model, in steps; one that `waits` may wait for room, see `MemoryPool.reserving`.

        Raises what the loader raises, ModelLoadingError if it can't run, MemoryExceededError or
        ResourceExceededError if there is no room for it.
        """
        begin = time.perf_counter()
        self._admission.leave()
        made = self._loader()
        if not isinstance(made, LoadedModel):
            made = yield from self._reserving(made, waits=waits)
        self._model = made
        self._format = TextFormat(self._model.tokenizer)
        settings = self._settings
        self._single_row = SingleRowSettings(
            draft=self._model.draft,
            draft_tokens=settings.draft_tokens,
            kv_bits=settings.kv_bits,
            kv_group_size=settings.kv_group_size,
            quantized_kv_start=settings.quantized_kv_start,
        )
        self._batch = self._new_batch()
        self._admission.leave()
        self._admission = Admission(self._memory, self._model.weights, self.prefixes, self._keep)
        self._admission.enter()
        why_not = self._single_row.why_not(self._model.model) if self._single_row.needed else None
        if why_not is not None:
            raise ModelLoadingError(
                f"`{self.name}` can't run with these settings: {why_not}", model_name=self.name
            )
        try:
            self._try_out()
        except Exception as error:
            raise ModelLoadingError(
                f"`{self.name}` can't run: {error}", model_name=self.name, original_exception=error
            ) from error
        self.prefixes.store = self._store(self._model)
        log.info("loaded `%s` in %.2f s", self.name, time.perf_counter() - begin)
        return self._model.facts

    def _reserving(self, steps: Loading, *, waits: bool) -> Loading:
        """Hand the steps on, once there is room for the weights."""
        first = next(steps)
        for _ in self._memory.reserving(self.name, first.total) if waits else ():
            if not self._memory.promised:
                time.sleep(STUCK_S)
            yield first
        self._memory.reserve(self.name, first.total)
        self._admission = Admission(self._memory, first.total, self.prefixes, self._keep)
        self._admission.enter()
        yield first
        return (yield from steps)

    def _store(self, model: LoadedModel) -> PrefixStore | None:
        settings = self._settings
        if settings.prefix_cache_dir is None:
            return None
        kind = f"{model.identity} {settings.kv_bits} {settings.kv_group_size}"
        folder = Path(settings.prefix_cache_dir).expanduser()
        return PrefixStore(folder, settings.prefix_disk_bytes, kind)

    def save_one(self) -> bool:
        """Let something of what was read be written to disk; return whether there may be more."""
        return self.prefixes.save_one()

    def wait_for_disk(self) -> None:
        """Wait until what was read is written to disk, once the model is freed; on any thread."""
        if self.prefixes.store is not None:
            self.prefixes.store.wait_closed()

    def refuse_if_too_large(self, request: RunRequest) -> None:
        """Raise MemoryExceededError if a run could never fit; from any thread."""
        self._admission.refuse_if_too_large(request)

    def retry_after_s(self) -> float:
        """Return about when the queue will have moved by one; from any thread."""
        return max(1.0, self._seconds_in_batch / self._settings.max_batch)

    def submit(self, run: Run) -> None:
        """Put a run into the queue; one that shares a prompt waits until that has been read."""
        run.move(RunStep.TAKE)
        shared_prompt = run.request.shared_prompt
        if shared_prompt is not None and not shared_prompt.ready:
            if shared_prompt.leader is not None:
                shared_prompt.others.add(run.key)
                return
            shared_prompt.leader = run.key
        self._scheduler.submit(run.key)

    def cancel(self, run: Run) -> None:
        """Take a run out, wherever it is; one that has ended already is left alone."""
        if not run.ended:
            self.counters.cancelled += 1
            self._forget(run, RunStep.CANCEL)

    def resume(self, run: Run) -> None:
        """Let a parked run go on, if its reader has caught up."""
        if run.state is not RunState.PARKED:
            return
        if run.caught_up or run.unread <= self._settings.max_unread // 2:
            run.move(RunStep.RESUME)
            run.inbox.parked = False
            self._scheduler.resume(run.key)

    @property
    def model(self) -> LoadedModel | None:
        """The model, once it is loaded; its weights may be shared by another."""
        return self._model

    @property
    def busy(self) -> bool:
        """Whether a turn would do anything."""
        return len(self._scheduler) > 0

    @property
    def streaming(self) -> bool:
        """Whether a reader waits for its next token."""
        return self._scheduler.streaming

    def turn(self, active_models: int = 1) -> None:
        """Make one step and deliver its events; `active_models` models take turns."""
        assert self._batch is not None
        begin = time.perf_counter()
        self.counters.steps += 1
        self._admit()
        # What flies is done before a chunk could begin; and first tokens are waited for.
        first = self._scheduler.oldest is not None or self._batch.first_token_flies
        if first:
            self._receive(self._batch.collect())
            self._flush()
            self._prefill(active_models)
        rows = self._scheduler.decoding
        self._decode(rows, alone=not first and active_models == 1)
        self._flush()
        seconds = time.perf_counter() - begin
        self.counters.step_seconds.add(seconds)
        if first or active_models > 1:
            self._tuner.disturbed()
        elif self._scheduler.streaming:
            self._tuner.took(rows, seconds)
        if self._faults_in_a_row >= SUSPICIOUS:
            self._faults_in_a_row = 0
            self._try_out()

    def rest(self) -> None:
        """Wait for what is still being computed, and leave the process as it was found."""
        if self._batch is not None:
            self._batch.settle()
        set_blas_threads(BLAS_THREADS)

    def fail_all(self, error: Exception) -> None:
        """End every run that was taken from the mailbox with an error, and give the batch up."""
        for run in self.runs:
            if run.state is not RunState.POSTED:
                self._fail(run, error)
        self._flush()
        self._batch = None
        self._delivery = EventDelivery()

    def revive(self) -> None:
        """Begin with an empty batch; load the model again if it can't be used any more.

        Raises what the loader raises, and whatever the model raises that was loaded anew.
        """
        if self._model is None:
            self.load()
            return
        self._batch = self._new_batch()
        try:
            self._try_out()
        except BaseException:
            log.exception("the model is broken and is loaded again")
            self.free()
            self.load()

    def statistics(self, restarts: int) -> EngineStatistics:
        """Return a snapshot; from any thread."""
        count, prefixes, runs = self.counters, self.prefixes, self.runs
        parked = [one for one in (run.parked for run in runs) if one is not None]
        return EngineStatistics(
            decoding=runs.count(RunState.DECODING),
            prefilling=runs.count(RunState.READING),
            waiting=runs.count(RunState.POSTED, RunState.WAITING),
            parked=runs.count(RunState.PARKED),
            weights_bytes=self._admission.weights if self._model is not None else 0,
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
        """Free the model and everything made with it; what was read is being written to disk."""
        while self.prefixes.save_one():
            pass
        if self.prefixes.store is not None:
            self.prefixes.store.close()
        if self._batch is not None:
            self._batch.close()
        self.prefixes.clear()
        self._admission.leave()
        self._batch = self._model = self._format = None
        set_blas_threads(BLAS_THREADS)

    # A turn.

    def _new_batch(self, *, keep: bool = True) -> Batch:
        assert self._model is not None
        ends = self._model.tokenizer.eos_token_ids
        return Batch(self._model.model, ends, self._keep if keep else None, self._single_row)

    def _keep(self, row: Row, take: Callable[[], list[Any]], tokens: int) -> None:
        """Keep what a row that leaves the batch has read, for prompts that begin alike."""
        self.prefixes.offer(row.kind, row.sequence[:tokens], take)

    def _find(self, row: Row) -> int:
        """Give a row what others have read of its sequence; return how many tokens that is."""
        if row.prompt_embeddings is not None and row.prompt_embeddings.extras:
            return 0  # the extras need the whole prompt, so no prefix is reused
        hit = self.prefixes.find(row.kind, row.sequence)
        if hit is None:
            return 0
        row.caches, row.done = hit.caches, hit.length
        return hit.length

    # Several answers to one prompt.

    def _split(self, run: Run, row: Row) -> None:
        """Let the others begin, if a run has read what its prompt's runs share."""
        shared_prompt = run.request.shared_prompt
        if (
            shared_prompt is None
            or shared_prompt.ready
            or shared_prompt.leader != run.key
            or row.done < run.shared
        ):
            return
        if row.caches is not None and row.done and shared_prompt.others:
            shared_prompt.caches, shared_prompt.length = copy.deepcopy(row.caches), row.done
        self._let_others_begin(shared_prompt)

    def _let_others_begin(self, shared_prompt: SharedPrompt) -> None:
        shared_prompt.ready = True
        for key in sorted(shared_prompt.others, reverse=True):  # oldest first in the queue
            self._scheduler.resume(key)

    def _begin_where_split(self, run: Run, row: Row) -> bool:
        """Give a run what the first of its prompt's has read; return whether there was any."""
        shared_prompt = run.request.shared_prompt
        if shared_prompt is None or shared_prompt.leader == run.key:
            return False
        caches = shared_prompt.caches
        shared_prompt.begun(run.key)
        if caches is None:
            return False
        row.caches = caches if shared_prompt.caches is None else copy.deepcopy(caches)
        row.done = shared_prompt.length
        return True

    def _try_out(self) -> None:
        """Run a little: raises what a broken model raises, and no reader waits for a first time."""
        assert self._model is not None
        self._model.model.warm_up()
        batch = self._new_batch(keep=False)
        sampler = sampler_for(GenerationOptions(), 1)
        for length in (3, 66, 66):
            row = Row(0, [0] * length, length, 2, sampler)
            left = batch.add(row)
            begin = time.perf_counter()
            _raise_fault(batch.prefill([(0, left - 1)]))
            self._pace.prefilled(left - 1, 0, time.perf_counter() - begin)
            self._admission.learn(row)
            _raise_fault(batch.prefill([(0, 1)]))
            while len(batch):
                begin = time.perf_counter()
                _raise_fault(batch.decode())
                self._pace.decoded(time.perf_counter() - begin)

    def _admit(self) -> None:
        for key in self._scheduler.admit(self._has_room):
            run = self.runs[key]
            try:
                self._begin(run)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is this run's alone
                self._fail(run, error)
        while self._stuck:
            run, refusal = self._stuck.pop()
            without_frames(refusal)
            self._end(run, refusal)
        for key, position in self._scheduler.moved():
            self._tell(self.runs[key], QueuePosition(position))

    def _has_room(self, key: int) -> bool:
        waiting = [run for run in self.runs if run.parked is not None and run.key != key]
        if self._admission.make(self.runs[key], waiting):
            return True
        try:
            self._admission.refuse_if_stuck(time.perf_counter())
        except ResourceExceededError as error:
            self._stuck.append((self.runs[key], error))
        if self._admission.stuck:
            time.sleep(STUCK_S)
        return False

    def _begin(self, run: Run) -> None:
        """Give a run, new or parked, its place in the batch."""
        assert self._model is not None
        assert self._format is not None
        assert self._batch is not None
        run.move(RunStep.ADMIT)
        options, prompt = run.request.options, run.request.prompt
        if run.parked is not None:
            self._continue(run, run.parked)
            return
        run.text = TextStream(
            self._format,
            state=run.request.state or ANSWER_STATE,
            after=prompt[-1] if options.goes_on else None,
            stop=options.stop,
            tools=run.request.tools,
        )
        run.row = Row(
            run.key,
            list(prompt),
            len(prompt),
            options.max_tokens,
            self._sampling.sampler(options, self._model.vocabulary),
            self._sampling.processors(options),
            run.request.form,
            LogprobRecorder(options.top_logprobs) if options.logprobs else None,
        )
        run.row.kind = run.request.kind
        if run.request.images is not None:
            run.row.prompt_embeddings = self._model.model.embed(run.request.images)
        run.admitted = time.perf_counter()
        if self._begin_where_split(run, run.row):
            run.cached = run.row.done
        else:
            run.cached = self._find(run.row)
        self.counters.cached_tokens += run.cached
        self._tell(run, GenerationStarted(run.name, len(prompt), run.cached))
        self._split(run, run.row)
        left = self._batch.add(run.row)
        self._note_left(run, left)
        if left == 0:
            self._tell(run, PrefillProgress(len(prompt), len(prompt)))

    def _continue(self, run: Run, parked: Parked) -> None:
        assert self._batch is not None
        run.parked, run.row = None, parked.row
        if parked.pending is not None:  # a token sampled before parking and not delivered
            token = self._batch.deliver(parked)
            self._advance(token)
            if run.ended:
                return
        if parked.row.caches is None:  # its caches were given up for memory
            self._find(parked.row)
        self._note_left(run, self._batch.add(parked.row))

    def _note_left(self, run: Run, left: int) -> None:
        """Note how many tokens a run in the batch has still to read; with none, it decodes."""
        self._scheduler.read(run.key, left)
        if left and run.state is RunState.DECODING:
            run.move(RunStep.READ_AGAIN)
        elif not left and run.state is RunState.READING:
            run.move(RunStep.DECODE)

    def _prefill(self, active_models: int) -> None:
        """Read one chunk, if a prompt waits."""
        assert self._batch is not None
        oldest = self._scheduler.oldest
        if oldest is None:
            return
        context = self._row(oldest).done
        felt = self._scheduler.streaming or active_models > 1
        budget = self._pace.budget(context, active_models) if felt else MOST_CHUNK
        plan = self._scheduler.plan(budget, together=self._batch.together)
        plan = self._up_to_boundary(plan)
        set_blas_threads(BLAS_THREADS)
        begin = time.perf_counter()
        result = self._batch.prefill(plan)
        seconds = time.perf_counter() - begin
        if not result.failed:
            if len(plan) > 1 or plan[0][0] == oldest:
                self._pace.prefilled(len(plan) * max(n for _, n in plan), context, seconds)
            self._keep_boundary(plan)
            self.counters.prefill_tokens += sum(n for _, n in plan)
        self._receive(result)

    def _row(self, key: int) -> Row:
        row = self.runs[key].row
        assert row is not None
        return row

    def _boundary(self, key: int) -> int | None:
        """Return where the next beginning worth keeping ends in a run's prompt, if there is one."""
        run, done = self.runs[key], self._row(key).done
        ends = [end for end in run.request.boundaries if end - done >= LEAST_TOKENS]
        shared_prompt = run.request.shared_prompt
        if shared_prompt is not None and not shared_prompt.ready and done < run.shared:
            ends.append(run.shared)
        return min(ends, default=None)

    def _up_to_boundary(self, plan: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Let a prompt that has a boundary, or images, be read alone, up to it at most."""
        for key, n in plan:
            given, done = self._row(key).prompt_embeddings, self._row(key).done
            if given is not None and done < given.length:
                most = given.length - done
                return [(key, most if given.extras else min(n, most))]
            end = self._boundary(key)
            if end is not None:
                return [(key, min(n, end - self._row(key).done))]
        return plan

    def _keep_boundary(self, plan: list[tuple[int, int]]) -> None:
        for key, _ in plan:
            row = self._row(key)
            self._split(self.runs[key], row)
            if row.caches is not None and row.done in self.runs[key].request.boundaries:
                self._keep(row, partial(copy.deepcopy, row.caches), row.done)

    def _decode(self, rows: int, *, alone: bool) -> None:
        """Make a decode step of `rows` rows; `alone` if nothing else is done in this turn."""
        assert self._batch is not None
        set_blas_threads(self._tuner.choose(rows))
        begin = time.perf_counter()
        self._receive(self._batch.decode())
        if alone and self._scheduler.streaming:
            self._pace.decoded(time.perf_counter() - begin)

    def _receive(self, result: StepResult) -> None:
        self.counters.decode_tokens += len(result.tokens)
        self._faults_in_a_row = 0 if result.tokens else self._faults_in_a_row + len(result.faults)
        for chunk in result.chunks:
            run = self.runs[chunk.key]
            self._note_left(run, chunk.left)
            assert run.row is not None
            if not run.row.generated:
                total = len(run.request.prompt)
                done = total if chunk.left == 0 else run.row.done
                self._tell(run, PrefillProgress(done, total))
        advanced = [self.runs[token.key] for token in result.tokens if token.key in self.runs]
        for token in result.tokens:
            if token.key in self.runs:
                self._advance(token)
        for key, error in result.faults.items():
            if key in self.runs:  # not one whose last token has just come
                self._fail(self.runs[key], error)
        for run in advanced:
            full = run.unread >= self._settings.max_unread and not run.caught_up
            if full and run.state in (RunState.READING, RunState.DECODING):
                self._park(run)

    def _advance(self, token: Token) -> None:
        """Give a run its token."""
        run = self.runs[token.key]
        self._scheduler.stream(run.key)
        try:
            deltas = run.take(token, self.counters.steps)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this run's alone
            self._fail(run, error)
            return
        self._tell(run, *deltas)
        assert run.text is not None
        if token.finish or run.text.stopped:
            self._finish(run, "stop" if run.text.stopped else token.finish or "stop")

    def _park(self, run: Run) -> None:
        assert self._batch is not None
        run.move(RunStep.PARK)
        run.parked = self._batch.park(run.key)
        self._admission.release(run.key)
        self.counters.parkings += 1
        self._scheduler.park(run.key)
        run.inbox.parked = True
        self.resume(run)  # the reader may have caught up before it saw `parked`

    # Ends.

    def _finish(self, run: Run, reason: str) -> None:
        assert run.text is not None
        now = time.perf_counter()
        self.counters.finished += 1
        self._seconds_in_batch += 0.1 * (now - run.admitted - self._seconds_in_batch)
        calls = run.text.calls
        reason = "tool_calls" if calls and reason == "stop" else reason
        self._tell(run, RunFinished(reason, run.usage(), run.timing(now), calls))
        self._forget(run, RunStep.FINISH)

    def _fail(self, run: Run, error: Exception) -> None:
        if not isinstance(error, GenerationError):
            log.error("run %d failed", run.key, exc_info=error)
            without_frames(error)
            error = GenerationError(
                f"the generation failed: {type(error).__name__}", original_exception=error
            )
        without_frames(error)
        self._end(run, error, faulty=True)

    def _end(self, run: Run, error: Exception, *, faulty: bool = False) -> None:
        self.counters.faults += 1
        self._tell(run, RunFailed(error))
        self._forget(run, RunStep.FAIL, faulty=faulty)

    def _forget(self, run: Run, end: RunStep, *, faulty: bool = False) -> None:
        shared_prompt = run.request.shared_prompt
        if shared_prompt is not None:
            shared_prompt.begun(run.key)
            if shared_prompt.leader == run.key and not shared_prompt.ready:
                self._let_others_begin(shared_prompt)
        run.move(end)
        run.parked, run.row = None, None
        if self._batch is not None:
            self._batch.remove([run.key], faulty=faulty)
        self._admission.release(run.key)
        self._scheduler.remove(run.key)
        self.runs.remove(run)

    def _tell(self, run: Run, *events: RunEvent) -> None:
        if not run.ended:
            self._delivery.add(run, events)

    def _flush(self) -> None:
        for run in self._delivery.flush():  # their event loop is closed
            self.cancel(run)


def _raise_fault(result: StepResult) -> None:
    for error in result.faults.values():
        raise error
