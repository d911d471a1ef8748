"""One model that is served: found, loaded when it is asked for, unloaded when it is idle.

Its prompts are made on a thread of its own: a long one must hold up neither the event loop nor a
decode step nor another model's prompts, and tokenizers are not shared between threads.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from provider.constraints.compiler import GrammarCompiler
from provider.engine.engine import Engine, EngineClosedError
from provider.engine.memory_pool import MemoryPool
from provider.engine.mlx_thread import MlxThread
from provider.engine.model import LoadedModel, Loading, LoadProgress
from provider.engine.statistics import EngineStatistics, total_of
from provider.formats.chat_template import ChatTemplate
from provider.formats.families import what_is_missing
from provider.interface import ModelInfo, ModelLoadingError
from provider.models.loading import image_processor_of, loading, tokenizer_of
from provider.models.request_builder import RequestBuilder
from provider.models.source import ModelSource, resolve, resolve_adapter
from provider.models.vision import why_text_only
from provider.runtime.mlx import clear_streams_at_thread_end, describe
from provider.runtime.mlx_lm import say_what_is_unknown
from provider.settings import EngineSettings

__all__ = [
    "ServedModel",
]


BETWEEN_CALLS_S = 0.25  # longer than a client takes from one answer to its next call
SAID_EVERY_S = 10.0  # seconds between log lines on a download

log = logging.getLogger(__name__)


class ServedModel:
    """A model by name. Its methods may be called from any thread."""

    def __init__(
        self,
        source: ModelSource,
        settings: EngineSettings,
        thread: MlxThread,
        memory: MemoryPool,
        *,
        base: ServedModel | None = None,
        pinned: bool = False,
    ):
        self.source = source
        self.pinned = pinned
        self.last_used = time.monotonic()  # in seconds
        self._past: list[EngineStatistics] = []  # statistics of unloaded engines, added up
        self._settings = settings
        self._thread = thread
        self._memory = memory
        self._base = base
        self.adapters: list[ServedModel] = []  # models that share its weights
        if base is not None:
            base.adapters.append(self)
        self._lock = threading.Lock()
        self._closed = False
        self._context_window: int | None = None
        self._last_said = 0.0  # time of the last log line on a download, in seconds
        self.loaded_at = 0.0  # in seconds
        self._way: Future[RequestBuilder] | None = None  # for those who ask while it makes way
        self._way_asked = False
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._unloaded = False
        self.engine = Engine(
            self.name, self._steps, self._settings, thread=self._thread, memory=self._memory
        )
        self._text_worker = ThreadPoolExecutor(
            max_workers=1,
            thread_name_prefix="mlx-prompt",
            initializer=clear_streams_at_thread_end,  # images' processors make small mlx arrays
        )
        self._preparing: Future[RequestBuilder] | None = None
        self._files: tuple[Path, Path | None, Path | None, Any] | None = None

    @property
    def name(self) -> str:
        """The name that requests use."""
        return self.source.name

    @property
    def info(self) -> ModelInfo:
        """The public information on the model."""
        loaded = self.loaded() is not None
        return ModelInfo(self.name, self._context_window, loaded, self.source.base)

    @property
    def closed(self) -> bool:
        """Whether it is closed for good."""
        return self._closed

    @property
    def loading_failed(self) -> bool:
        """Whether the last attempt to load it failed."""
        preparing = self._preparing
        return preparing is not None and preparing.done() and preparing.exception() is not None

    @property
    def unloaded(self) -> bool:
        """Whether it was loaded once, and is loaded again when it is asked for."""
        return bool(self._past) and self.loaded() is None

    @property
    def in_use(self) -> bool:
        """Whether it is loaded, or is being loaded."""
        return self._preparing is not None and not self.loading_failed

    def loaded(self) -> RequestBuilder | None:
        """Return its request builder, None while it is not loaded; never waits."""
        preparing = self._preparing
        if preparing is None or not preparing.done() or preparing.exception() is not None:
            return None
        return preparing.result()

    def ready_now(self) -> RequestBuilder | None:
        """Return what `loaded` does, None too while it makes way; never waits."""
        return None if self._way is not None else self.loaded()

    def statistics(self) -> EngineStatistics:
        """Return its numbers since it was first loaded; never waits."""
        with self._lock:
            engines = [] if self._unloaded else [self.engine.statistics()]
            return total_of([*engines, *self._past])

    def ready(self) -> Future[RequestBuilder]:
        """Return the loading of the model, begun now if it has not been, or has failed.

        While it makes way, that is its next loading, or its staying if it need not go.
        """
        with self._lock:
            self.refuse_if_closed()
            self.last_used = time.monotonic()
            if self._way is not None:
                self._way_asked = True
                return self._way
            return self._begin_loading()

    def _begin_loading(self) -> Future[RequestBuilder]:
        if self.engine.closed:
            self._begin_anew()
        if self._preparing is None or self.loading_failed:
            self._preparing = self._text_worker.submit(self._prepare)
        return self._preparing

    def refuse_if_closed(self) -> None:
        """Raise EngineClosedError once it is closed for good."""
        if self._closed:
            raise EngineClosedError("the provider is closed")

    def touch(self) -> None:
        """Note that it was used."""
        self.last_used = time.monotonic()

    def prepare(self, work: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Run `work` on the model's prompt thread. Raises EngineClosedError."""
        try:
            return self._text_worker.submit(work, *arguments)
        except RuntimeError as error:
            raise EngineClosedError("the model was unloaded") from error

    def watch(self, watcher: Callable[[LoadProgress], None]) -> None:
        """Call `watcher` with the progress of loading, on any thread."""
        self.engine.watch(watcher)

    @property
    def in_demand(self) -> bool:
        """Whether it was loaded and used so recently that it would soon be loaded again."""
        now = time.monotonic()
        loaded_now = now - self.loaded_at < self._memory.stay_s
        return loaded_now and now - self.last_used < BETWEEN_CALLS_S

    @property
    def makes_way(self) -> bool:
        """Whether it takes no new calls, so that its memory can be another's."""
        return self._way is not None

    def make_way(self) -> bool:
        """Take no new calls until it was unloaded, or `call_off`; return whether that is so.

        It is not for one that must stay, or has only just been loaded.
        """
        with self._lock:
            if self.pinned or self.loaded() is None or any(one.in_use for one in self.adapters):
                return False
            if time.monotonic() - self.loaded_at < self._memory.stay_s:
                return False
            self._way, self._way_asked = Future(), False
        log.info("`%s` makes way for another model", self.name)
        return True

    def call_off(self) -> None:
        """Take calls again, if it made way and need not go."""
        with self._lock:
            way, self._way = self._way, None
            if way is not None:
                _follow(self._preparing or self._begin_loading(), way)

    def unload(self, *, on_mlx_thread: bool = False) -> bool:
        """Free it if nobody uses it; return whether that was done. The next call loads it again."""
        with self._lock:
            if self.pinned or self.loaded() is None or any(one.in_use for one in self.adapters):
                return False
            if not self.engine.retire():
                return False
            past = [*self._past, self.engine.statistics().only_growing()]
            self._past, self._unloaded = [total_of(past)], True
            self._preparing = None
            self._text_worker.shutdown(wait=False)
            engine, way, self._way = self.engine, self._way, None
            if way is not None and self._way_asked:
                _follow(self._begin_loading(), way)  # behind the one that it made way for
        if on_mlx_thread:
            engine.end()
        else:
            engine.close(0)
        log.info("unloaded `%s`", self.name)
        return True

    def discard(self) -> None:
        """Take no new calls; for one that is not loaded."""
        with self._lock:
            self._closed = True
        self._text_worker.shutdown(wait=False)

    def close(self, grace_s: float | None = None) -> None:
        """Take no new calls, and free it; see `Engine.close`. A loading is given up."""
        with self._lock:
            self._closed = True
            way, self._way = self._way, None
        if way is not None:
            way.set_exception(EngineClosedError("the provider is closed"))
        if self.loaded() is None:
            self.engine.close(0)
        self._text_worker.shutdown(wait=True)
        self.engine.close(grace_s)

    # On the thread of its prompts, and on the MLX thread.

    def _prepare(self) -> RequestBuilder:
        """Find the files, load the weights on the MLX thread, make the tokenizers on this one."""
        log.info("mlx on %s", describe())
        say_what_is_unknown()
        source = self.source
        if self._base is not None:
            self._base.ready().result()  # stays: this one is in use from now on
        tell = self._tell_download
        draft = None if source.draft is None else resolve(source.draft, tell)
        adapter = None if source.adapter is None else resolve_adapter(source.adapter, tell)
        path = resolve(source.path, tell)
        self._files = (path, draft, adapter, tokenizer_of(path))
        weights = self.engine.load()
        try:
            template, image_processor = ChatTemplate(tokenizer_of(path)), image_processor_of(path)
        except ModelLoadingError:
            self.engine.close(0)  # with the weights, which nobody could use or unload
            raise
        model = weights.result()
        self._context_window = model.context_window
        if template.stop:
            log.warning(
                "`%s` has no chat template; turns are marked User: and Assistant:", self.name
            )
        if missing := what_is_missing(template.tokenizer):
            log.warning("`%s`: %s", self.name, missing)
        self.loaded_at = time.monotonic()
        return RequestBuilder(
            template,
            model.context_window,
            model.vocabulary,
            GrammarCompiler(template.tokenizer, model.vocabulary),
            keep_boundaries=not model.trimmable,
            image_processor=image_processor,
            why_text_only=why_text_only(path),
        )

    def _tell_download(self, done: int, total: int) -> None:
        """Tell how a download goes on; raises EngineClosedError, which stops it, once closed."""
        self.refuse_if_closed()
        self.engine.tell(LoadProgress(done, total))
        if time.monotonic() - self._last_said > SAID_EVERY_S:
            self._last_said = time.monotonic()
            log.info("downloading `%s`: %d of %d MiB", self.name, done >> 20, total >> 20)

    def _steps(self) -> Loading:
        assert self._files is not None
        path, draft, adapter, tokenizer = self._files
        base: LoadedModel | None = None
        if self._base is not None:
            base = self._base.engine.model
            if base is None:
                said = f"`{self._base.name}` was unloaded before its adapter could be loaded"
                raise ModelLoadingError(said, model_name=self.name)
        return loading(path, draft, adapter=adapter, base=base, tokenizer=tokenizer)


def _follow(loading: Future[RequestBuilder], way: Future[RequestBuilder]) -> None:
    """Let `way` end as `loading` does."""

    def end(done: Future[RequestBuilder]) -> None:
        if (error := done.exception()) is not None:
            way.set_exception(error)
        else:
            way.set_result(done.result())

    loading.add_done_callback(end)
