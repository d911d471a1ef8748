"""Loads the model of one engine in steps, tests it, reloads it when it is broken, and frees it.

Rule: only the MLX thread calls it, except for `wait_for_disk`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator, Hashable, Iterable, Sequence
from contextlib import closing
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from provider.caches.prefix_cache import PrefixCache
from provider.caches.prefix_store import PrefixStore
from provider.constraints.mask_maker import MaskMaker
from provider.engine.admission import Admission
from provider.engine.batch import Batch
from provider.engine.chunk_cost import ChunkCost
from provider.engine.memory_pool import MemoryPool
from provider.engine.model import LoadedModel, Loading, LoadProgress, ModelFacts
from provider.engine.pace import DEEPEST, Pace
from provider.engine.prompt_reuse import PromptReuse
from provider.engine.rows import Keep, Row, StepResult
from provider.engine.sampling import sampler_for
from provider.engine.shapes import ANY_SHAPE, STEP, Shapes, Timing
from provider.engine.speculative import SingleRowSettings
from provider.engine.warm_up import WarmUp
from provider.formats.text_stream import TextFormat
from provider.interface import ModelLoadingError
from provider.options import GenerationOptions
from provider.runtime.mlx import (
    BLAS_THREADS,
    keep_fused_kernels,
    mx,
    prepares_kernels,
    set_blas_threads,
    tree_flatten,
)
from provider.settings import EngineSettings

__all__ = ["RECHECK_S", "KeptCosts", "Loader", "ModelSlot"]

FREED_AT_ONCE = 64 << 20  # bytes; giving them back to the system takes some 10 ms
LONG_S = 0.5  # seconds of a pass that is not timed three times without need
LONG_PREPARED_S = 0.005  # the same where mlx prepares nothing
MARGIN = 1.1  # times as long as its tokens explain, up to which a pass is so explained
MAX_KEPT = 64  # models whose costs are kept
RECHECK_S = 0.01  # seconds between two attempts to get memory that no run will free

# Returns the model, or the steps of loading it, between which other models have their turns.
Loader = Callable[[], LoadedModel | Loading]
Result = TypeVar("Result")

log = logging.getLogger(__name__)


class KeptCosts:
    """What passes of models cost when they were loaded, for their next loading. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[Hashable, tuple[ChunkCost, list[Timing]]] = {}

    def __len__(self) -> int:
        """Return of how many models something is kept."""
        return len(self._kept)

    def find(self, key: Hashable) -> tuple[ChunkCost, list[Timing]] | None:
        """Return a copy of what was kept, None if nothing was."""
        with self._lock:
            return deepcopy(self._kept.get(key))

    def keep(self, key: Hashable, cost: ChunkCost, timings: list[Timing]) -> None:
        """Keep a copy of these, and forget the oldest where there are too many."""
        with self._lock:
            self._kept[key] = deepcopy((cost, timings))
            while len(self._kept) > MAX_KEPT:
                del self._kept[next(iter(self._kept))]


class ModelSlot:
    """One engine's model, the format of its text, and its share of the memory."""

    def __init__(
        self,
        name: str,
        loader: Loader,
        settings: EngineSettings,
        memory: MemoryPool,
        reuse: PromptReuse,
        pace: Pace,
        disk_done: Callable[[], None] = lambda: None,
        costs: KeptCosts | None = None,
        open_store: Callable[[Path, int, str], PrefixStore] = PrefixStore,
        clock: Callable[[], float] = time.perf_counter,
        prepares: Callable[[], bool] = prepares_kernels,
        padding: Callable[[], int] = lambda: 0,
    ):
        self.name = name
        self.model: LoadedModel | None = None
        self.text_format: TextFormat | None = None
        self._loader = loader
        self._settings = settings
        self._memory = memory
        self._reuse = reuse
        self._pace = pace  # gets its first timings when the model is loaded
        self._costs = KeptCosts() if costs is None else costs
        self._disk_done = disk_done  # called on another thread when a KV cache was written
        self._open_store = open_store
        self._clock = clock  # returns seconds
        self._prepares = prepares  # whether mlx may take longer for what it computes first
        self._padding = padding  # see Admission
        self._single_row = SingleRowSettings()
        self.masks = MaskMaker()
        self.admission = self._admission(0)

    def load(self) -> ModelFacts:
        """Load the model at once, without waiting for memory or a warm-up.

        Raises what `steps` raises.
        """
        steps = self.steps(waits=False)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]

    def steps(self, *, waits: bool = True) -> Generator[LoadProgress, None, ModelFacts]:
        """Load the model in steps; with `waits`, wait for memory as `MemoryPool.reserving` does.

        With `waits`, the passes of its first requests are made too, where that pays.

        Raises what the loader raises, ModelLoadingError if the model can't run, MemoryExceededError
        or ResourceExceededError if its weights don't fit.
        """
        begin = time.perf_counter()
        self.admission.leave()
        made = self._loader()
        if not isinstance(made, LoadedModel):
            made = yield from self._reserving(made, waits=waits)
        self._install(made)
        self._refuse_if_unable()
        timings = yield from self._measure(made)  # before the warm-up, while shapes are new
        if waits:
            yield from self._warming_up(made, timings)
        self.prefixes.store = yield from self._store(made)
        log.info("loaded `%s` in %.2f s", self.name, time.perf_counter() - begin)
        return made.facts

    def new_batch(self, *, keep: bool = True) -> Batch:
        """Return an empty batch; with `keep`, its rows' caches are kept for later prompts."""
        assert self.model is not None
        ends = self.model.tokenizer.eos_token_ids
        kept = self._reuse.keep if keep else None
        return self._batch(ends, kept, self._reuse.shapes)

    def _batch(self, ends: Iterable[int], keep: Keep | None, shapes: Shapes) -> Batch:
        assert self.model is not None
        return Batch(
            self.model.model,
            ends,
            keep,
            self._single_row,
            self.masks,
            shapes,
            lambda: self.admission.free,
        )

    def revived(self) -> Batch:
        """Return an empty batch, after reloading the model if it fails `try_out`.

        Raises what the loader raises, and what the reloaded model raises in `try_out`.
        """
        if self.model is not None:
            try:
                self.try_out()
            except BaseException:
                log.exception("the model is broken and is loaded again")
                self.free()
        if self.model is None:
            self.load()
        return self.new_batch()

    def try_out(self) -> None:
        """Run three short prompts, to find a broken model and to warm up; raises what fails."""
        assert self.model is not None
        self.model.model.warm_up()
        batch = self.new_batch(keep=False)
        sampler = sampler_for(GenerationOptions(), 1)
        for length in (3, 70, 70):  # sizes that `Pace.trials` does not have, to leave them new
            row = Row(0, [0] * length, length, 2, sampler)
            left = batch.add(row)
            _raise_fault(batch.prefill([(0, left - 1)]))
            self.admission.learn(row)
            _raise_fault(batch.prefill([(0, 1)]))
            while len(batch):
                _raise_fault(batch.decode())

    def free(self) -> None:
        """Free the model and its kept KV caches; saving these to disk goes on.

        What the queue of the disk has no room for is lost, because waiting would hold up the other
        models.
        """
        for _ in self.freeing():
            pass

    def freeing(self) -> Generator[None, None, None]:
        """Do what `free` does in steps, between which other models may decode.

        A step saves one KV cache or frees FREED_AT_ONCE bytes. It takes time to give memory back to
        the system, and no Python thread runs meanwhile.
        """
        yield from self._saving()
        arrays = _arrays_of([cache.state for cache in self.prefixes.take_all()])
        if self.model is not None:
            arrays += _arrays_of(self.model.parameters)
        self.model = self.text_format = None
        # From now on another model may take the memory: it is loaded in steps too, no faster than
        # this one is freed.
        self.admission.leave()
        while arrays:
            freed = 0
            while arrays and freed < FREED_AT_ONCE:
                freed += arrays.pop().nbytes
            yield

    def _saving(self) -> Generator[None, None, None]:
        """Save what is kept, and close what saves it; whatever fails is logged."""
        prefixes = self.prefixes
        try:
            self.masks.close()
            self.masks = MaskMaker()
            while prefixes.save_one():
                yield
            if prefixes.unsaved:
                lost = "KV caches of `%s` that are lost, as the disk is too slow to save them: %d"
                log.info(lost, self.name, prefixes.unsaved)
            if prefixes.store is not None:
                prefixes.store.close()
        except Exception:
            log.exception("what was kept of `%s` can't be saved", self.name)

    def wait_for_disk(self) -> None:
        """Wait until kept KV caches are on disk; from any thread, after the model is freed."""
        if self.prefixes.store is not None:
            self.prefixes.store.wait_closed()

    @property
    def prefixes(self) -> PrefixCache:
        """The KV caches kept for later prompts."""
        return self._reuse.prefixes

    def _install(self, model: LoadedModel) -> None:
        settings = self._settings
        self.model, self.text_format = model, TextFormat(model.tokenizer)
        self._single_row = SingleRowSettings(
            draft=model.draft,
            draft_tokens=settings.draft_tokens,
            kv_bits=settings.kv_bits,
            kv_group_size=settings.kv_group_size,
            quantized_kv_start=settings.quantized_kv_start,
        )
        if settings.few_shapes != "auto":
            few = settings.few_shapes == "on"
            self._reuse.shapes = Shapes(STEP, model.context_window) if few else ANY_SHAPE
        self._hold(model.weights)

    def _refuse_if_unable(self) -> None:
        assert self.model is not None
        why_not = self._single_row.why_not(self.model.model) if self._single_row.needed else None
        if why_not is not None:
            raise ModelLoadingError(
                f"`{self.name}` can't run with these settings: {why_not}", model_name=self.name
            )
        try:
            self.try_out()
            keep_fused_kernels()
        except Exception as error:
            raise ModelLoadingError(
                f"`{self.name}` can't run: {error}", model_name=self.name, original_exception=error
            ) from error

    def _warming_up(
        self, model: LoadedModel, timings: Sequence[Timing]
    ) -> Generator[LoadProgress, None, None]:
        """Find out whether new shapes are dear, then make the passes of the first requests."""
        begin, settings = time.perf_counter(), self._settings
        warm_up = WarmUp(
            lambda shapes: self._batch((), None, shapes),
            self._has_room,
            vocabulary=model.vocabulary,
            window=model.context_window,
            max_batch=settings.max_batch,
            timed=self._pace.repeated,
        )
        if settings.few_shapes == "auto":
            self._reuse.shapes = yield from _told(warm_up.measuring(timings), model.weights)
            if self._reuse.shapes.few:
                log.info("prompts of `%s` are read in few shapes: a new one is slow", self.name)
        if not settings.warmup or not self._prepares():
            return
        for done, total in warm_up.steps(self._reuse.shapes):
            yield LoadProgress(done, total, warming_up=True)
        keep_fused_kernels()
        mx.clear_cache()
        seconds = time.perf_counter() - begin
        log.info("warmed up `%s` in %.2f s, %d passes", self.name, seconds, warm_up.passes)

    def _has_room(self, sequences: int, tokens: int) -> bool:
        """Return whether so many sequences find memory now, without anything evicted."""
        budget = self.admission.budget
        others = self._memory.held_by_others(self.admission) + self.prefixes.nbytes
        return budget.lacking(sequences * budget.need(tokens), others) == 0

    def _measure(self, model: LoadedModel) -> Generator[LoadProgress, None, list[Timing]]:
        """Return what passes over prompts of several sizes took, after timing them in steps.

        If this very model was loaded before, they are not timed again.
        """
        kept = self._costs.find(key := self._cost_key(model))
        if kept is not None:
            self._pace.begin_with(kept[0])
            return kept[1]
        found: list[Timing] = []
        complete = bool(model.identity)
        with closing(self._pace.trials()) as trials:
            for tokens in trials:
                if model.context_window is not None and tokens >= model.context_window:
                    break
                explained = self._explained(tokens, found[-1]) if found else 0.0
                timed = self._time_prompts(tokens, explained)
                try:
                    computed, times = yield from _told(timed, model.weights)
                except Exception:
                    log.warning("a prompt of %d tokens can't be read", tokens, exc_info=True)
                    complete = False
                    break
                self._pace.tried(computed, times)
                found.append(Timing.of(tokens, times))
        yield from _told(self._measure_depths(model.context_window), model.weights)
        if complete:
            self._costs.keep(key, self._pace.cost, found)
        return found

    def _cost_key(self, model: LoadedModel) -> Hashable:
        """Return what the costs of passes depend on, on this machine."""
        row = replace(self._single_row, draft=None)  # which is part of the identity
        return model.identity, row, self._settings.few_shapes

    def _measure_depths(self, window: int | None) -> Generator[None, None, None]:
        """Time passes after more and more tokens, in steps, as far as these fit."""
        batch = self.new_batch(keep=False)
        batch.add(_row_to_time(DEEPEST + 1))
        with closing(self._pace.depths()) as depths:
            for tokens, done in depths:
                fits = window is None or done + tokens < window
                if not fits or not self._has_room(1, done + tokens):
                    break
                yield
                try:
                    computed, seconds = self._time_pass(batch, tokens)
                except Exception:
                    log.warning("a prompt of %d tokens can't be read", done + tokens, exc_info=True)
                    break
                self._pace.deepened(computed, done, seconds)
        batch.close()

    def _explained(self, tokens: int, known: Timing) -> float:
        """Return the seconds that a pass may take because it is larger than a known one.

        Where mlx prepares nothing, they may grow by the square, as those of attention do.
        """
        growth = tokens / known.tokens
        return known.again * (growth if self._prepares() else growth * growth)

    def _time_prompts(
        self, tokens: int, explained: float
    ) -> Generator[None, None, tuple[int, list[float]]]:
        """Read prompts in a pass each, in steps; return the tokens with padding, and the seconds.

        There are three, or one where a pass is long, but no longer than its tokens explain
        (`explained` seconds), so that nothing was compiled. Raises what fails.
        """
        long = LONG_S if self._prepares() else LONG_PREPARED_S
        times: list[float] = []
        for _ in range(3):
            yield
            computed, seconds = self._time_prompt(tokens)
            times.append(seconds)
            if len(times) == 1 and long < seconds <= MARGIN * explained:
                break
        return computed, times

    def _time_prompt(self, tokens: int) -> tuple[int, float]:
        batch = self.new_batch(keep=False)
        batch.add(_row_to_time(tokens + 1))
        return self._time_pass(batch, tokens)

    def _time_pass(self, batch: Batch, tokens: int) -> tuple[int, float]:
        """Read so many tokens of the batch's only row."""
        set_blas_threads(BLAS_THREADS)
        begin = self._clock()
        result = batch.prefill([(0, tokens)])
        seconds = self._clock() - begin
        _raise_fault(result)
        return result.computed, seconds

    def _reserving(self, steps: Loading, *, waits: bool) -> Loading:
        """Reserve memory for the weights, then go through the steps of loading."""
        first = next(steps)
        for _ in self._memory.reserving(self.name, first.total) if waits else ():
            if not self._memory.promised:
                time.sleep(RECHECK_S)
            yield first
        self._memory.reserve(self.name, first.total)
        self._hold(first.total)
        yield first
        return (yield from steps)

    def _hold(self, weights: int) -> None:
        """Count `weights` bytes for this model in the shared memory."""
        self.admission.leave()
        self.admission = self._admission(weights)
        self.admission.enter()

    def _admission(self, weights: int) -> Admission:
        reuse = self._reuse
        return Admission(
            self._memory,
            weights,
            reuse.prefixes,
            reuse.keep,
            reuse.shared_prompts,
            self._padding,
        )

    def _store(self, model: LoadedModel) -> Generator[LoadProgress, None, PrefixStore | None]:
        """Open the model's prefix store, in steps while the disk is read."""
        settings = self._settings
        if settings.prefix_cache_dir is None:
            return None
        kind = f"{model.identity} {settings.kv_bits} {settings.kv_group_size}"
        folder = Path(settings.prefix_cache_dir).expanduser()
        store = self._open_store(folder, settings.prefix_disk_bytes, kind)
        store.on_room = self._disk_done
        # Where little memory is given to kept caches, there is little for evicted ones too.
        store.max_queued = min(store.max_queued, self.prefixes.max_bytes)
        try:
            while not store.opened(0 if self._memory.promised else RECHECK_S):
                yield LoadProgress(model.weights, model.weights)
        except GeneratorExit:
            store.close()
            raise
        return store


def _row_to_time(tokens: int) -> Row:
    return Row(0, [0] * tokens, tokens, 1, sampler_for(GenerationOptions(), 1))


def _told(
    steps: Generator[None, None, Result], weights: int
) -> Generator[LoadProgress, None, Result]:
    """Go through steps in which no more is loaded, and return what they return."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        yield LoadProgress(weights, weights)


def _arrays_of(tree: Any) -> list[Any]:
    return [array for _, array in tree_flatten(tree) if isinstance(array, mx.array)]


def _raise_fault(result: StepResult) -> None:
    for error in result.faults.values():
        raise error
