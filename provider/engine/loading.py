"""The model of one engine: loaded in steps, tried out, loaded again when it is broken, freed.

Rule: only the MLX thread calls it, but for `wait_for_disk`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator
from pathlib import Path

from provider.caches.prefix_cache import PrefixCache
from provider.caches.prefix_store import PrefixStore
from provider.engine.admission import Admission
from provider.engine.batch import Batch
from provider.engine.memory_pool import MemoryPool
from provider.engine.model import LoadedModel, Loading, LoadProgress, ModelFacts
from provider.engine.pace import Pace
from provider.engine.prompt_reuse import PromptReuse
from provider.engine.rows import Row, StepResult
from provider.engine.sampling import sampler_for
from provider.engine.speculative import SingleRowSettings
from provider.formats.text_stream import TextFormat
from provider.interface import ModelLoadingError
from provider.options import GenerationOptions
from provider.settings import EngineSettings

__all__ = ["RECHECK_S", "Loader", "ModelSlot"]

RECHECK_S = 0.01  # pause between looks at memory that no run will free

# Returns steps where other models get their turns in between.
Loader = Callable[[], LoadedModel | Loading]

log = logging.getLogger(__name__)


class ModelSlot:
    """The place of one model: its weights, the format of its text, and its part of the memory."""

    def __init__(
        self,
        name: str,
        loader: Loader,
        settings: EngineSettings,
        memory: MemoryPool,
        reuse: PromptReuse,
        pace: Pace,
    ):
        self.name = name
        self.model: LoadedModel | None = None
        self.text_format: TextFormat | None = None
        self._loader = loader
        self._settings = settings
        self._memory = memory
        self._reuse = reuse
        self._pace = pace  # told by the trial how fast the model is
        self._single_row = SingleRowSettings()
        self.admission = self._admission(0)

    def load(self) -> ModelFacts:
        """Do what `steps` does, to its end, without waiting for room."""
        steps = self.steps(waits=False)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]

    def steps(self, *, waits: bool = True) -> Generator[LoadProgress, None, ModelFacts]:
        """Load the model, in steps; one that `waits` may wait for room, see `MemoryPool.reserving`.

        Raises what the loader raises, ModelLoadingError if it can't run, MemoryExceededError or
        ResourceExceededError if there is no room for it.
        """
        begin = time.perf_counter()
        self.admission.leave()
        made = self._loader()
        if not isinstance(made, LoadedModel):
            made = yield from self._reserving(made, waits=waits)
        self._take(made)
        self._refuse_if_unable()
        self.prefixes.store = self._store(made)
        log.info("loaded `%s` in %.2f s", self.name, time.perf_counter() - begin)
        return made.facts

    def new_batch(self, *, keep: bool = True) -> Batch:
        """Return an empty batch; what its rows read is kept for later prompts if `keep`."""
        assert self.model is not None
        ends = self.model.tokenizer.eos_token_ids
        kept = self._reuse.keep if keep else None
        return Batch(self.model.model, ends, kept, self._single_row)

    def revived(self) -> Batch:
        """Return an empty batch, of the model loaded again if it can't be used any more.

        Raises what the loader raises, and whatever the model raises that was loaded anew.
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
        """Run a little: raises what a broken model raises, and no reader waits for a first time."""
        assert self.model is not None
        self.model.model.warm_up()
        batch = self.new_batch(keep=False)
        sampler = sampler_for(GenerationOptions(), 1)
        for length in (3, 66, 66):
            row = Row(0, [0] * length, length, 2, sampler)
            left = batch.add(row)
            begin = time.perf_counter()
            _raise_fault(batch.prefill([(0, left - 1)]))
            self._pace.prefilled(left - 1, 0, time.perf_counter() - begin)
            self.admission.learn(row)
            _raise_fault(batch.prefill([(0, 1)]))
            while len(batch):
                begin = time.perf_counter()
                _raise_fault(batch.decode())
                self._pace.decoded(time.perf_counter() - begin)

    def free(self) -> None:
        """Free the model and what was read with it, which goes on being written to disk."""
        prefixes = self.prefixes
        while prefixes.save_one():
            pass
        if prefixes.store is not None:
            prefixes.store.close()
        prefixes.clear()
        self.admission.leave()
        self.model = self.text_format = None

    def wait_for_disk(self) -> None:
        """Wait until what was read is written to disk, once the model is freed; on any thread."""
        if self.prefixes.store is not None:
            self.prefixes.store.wait_closed()

    @property
    def prefixes(self) -> PrefixCache:
        """What was read, and is kept."""
        return self._reuse.prefixes

    def _take(self, model: LoadedModel) -> None:
        settings = self._settings
        self.model, self.text_format = model, TextFormat(model.tokenizer)
        self._single_row = SingleRowSettings(
            draft=model.draft,
            draft_tokens=settings.draft_tokens,
            kv_bits=settings.kv_bits,
            kv_group_size=settings.kv_group_size,
            quantized_kv_start=settings.quantized_kv_start,
        )
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
        except Exception as error:
            raise ModelLoadingError(
                f"`{self.name}` can't run: {error}", model_name=self.name, original_exception=error
            ) from error

    def _reserving(self, steps: Loading, *, waits: bool) -> Loading:
        """Hand the steps on, once there is room for the weights."""
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
        """Count so many bytes of weights among what all models hold."""
        self.admission.leave()
        self.admission = self._admission(weights)
        self.admission.enter()

    def _admission(self, weights: int) -> Admission:
        return Admission(self._memory, weights, self._reuse.prefixes, self._reuse.keep)

    def _store(self, model: LoadedModel) -> PrefixStore | None:
        settings = self._settings
        if settings.prefix_cache_dir is None:
            return None
        kind = f"{model.identity} {settings.kv_bits} {settings.kv_group_size}"
        folder = Path(settings.prefix_cache_dir).expanduser()
        return PrefixStore(folder, settings.prefix_disk_bytes, kind)


def _raise_fault(result: StepResult) -> None:
    for error in result.faults.values():
        raise error
