"""One served model: it is loaded by the first call that names it, and unloaded when it is idle.

Each model has a prompt thread, which renders and tokenizes prompts. So a long prompt delays neither
the event loop nor a decode step nor another model's prompts, and no two threads share a tokenizer.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

from provider.constraints.compiler import GrammarCompiler
from provider.engine.engine import Engine, EngineClosedError
from provider.engine.loading import KeptCosts
from provider.engine.memory_pool import MemoryPool
from provider.engine.messages import RunRequest
from provider.engine.mlx_thread import MlxThread
from provider.engine.model import LoadedModel, Loading, LoadProgress, ModelFacts
from provider.engine.statistics import EngineStatistics, total_of
from provider.formats.chat_template import ChatTemplate
from provider.formats.families import what_is_missing
from provider.interface import GenerationError, ModelInfo, ModelLoadingError
from provider.models.dense_weights import dense_room
from provider.models.gguf.header import Header
from provider.models.loading import header_of, image_processor_of, loading, tokenizer_of
from provider.models.prompt_thread import PromptThread
from provider.models.request_builder import Call, RequestBuilder
from provider.models.sharded import Sharded
from provider.models.source import ModelSource, resolve, resolve_adapter
from provider.models.vision import why_text_only
from provider.runtime.mlx import describe
from provider.runtime.mlx_lm import warn_of_untested_versions
from provider.settings import EngineSettings

__all__ = [
    "ServedModel",
]


BETWEEN_CALLS_S = 0.25  # seconds, longer than a client needs from one answer to its next call
LOG_EVERY_S = 10.0  # seconds between log lines on a download
COSTS = KeptCosts()  # of all models of the process, which share one device

log = logging.getLogger(__name__)


class ServedModel:
    """A model that requests name. Any thread may call its methods."""

    def __init__(
        self,
        source: ModelSource,
        settings: EngineSettings,
        thread: MlxThread,
        memory: MemoryPool,
        *,
        base: ServedModel | None = None,
        pinned: bool = False,
        sharded: Sharded | None = None,
    ):
        self._sharded = sharded  # how it is loaded if other processes have parts of it
        self.source = source
        self.pinned = pinned
        self.last_used = time.monotonic()  # in seconds
        self._past: list[EngineStatistics] = []  # total statistics of unloaded engines
        self._settings = settings
        self._thread = thread
        self._memory = memory
        self._base = base
        self.adapters: list[ServedModel] = []  # models that share this model's weights
        if base is not None:
            base.adapters.append(self)
        self._lock = threading.Lock()
        self._closed = False
        self._facts = ModelInfo(source.name, base=source.base)  # those that are known so far
        self._last_logged = 0.0  # time of the last log line on a download, in seconds
        self.loaded_at = 0.0  # in seconds
        # The next loading, for calls that come while the model makes way; None if it does not.
        self._way: Future[RequestBuilder] | None = None
        self._way_asked = False  # whether a call waits for that loading
        self._create_engine()

    def _create_engine(self) -> None:
        self._unloaded = False
        self.engine = Engine(
            self.name,
            self._steps,
            self._settings,
            thread=self._thread,
            memory=self._memory,
            costs=COSTS,
        )
        self._prompts = PromptThread(self._settings.max_prompt_seconds)
        self._preparing: Future[RequestBuilder] | None = None
        self._files: tuple[Path, Path | None, Path | None, Any] | None = None
        self._header: Header | None = None  # of a GGUF file, until the weights are loaded

    @property
    def name(self) -> str:
        """The name that requests use."""
        return self.source.name

    @property
    def info(self) -> ModelInfo:
        """The public information on the model."""
        return replace(self._facts, loaded=self.loaded() is not None)

    @property
    def closed(self) -> bool:
        """Whether the model is closed for good."""
        return self._closed

    @property
    def loading_failed(self) -> bool:
        """Whether the last attempt to load the model failed."""
        preparing = self._preparing
        return preparing is not None and preparing.done() and preparing.exception() is not None

    @property
    def unloaded(self) -> bool:
        """Whether the model was loaded and unloaded again; the next call loads it."""
        return bool(self._past) and self.loaded() is None

    @property
    def in_use(self) -> bool:
        """Whether the model is loaded or being loaded."""
        return self._preparing is not None and not self.loading_failed

    def loaded(self) -> RequestBuilder | None:
        """Return the model's request builder, None while it is not loaded; never waits."""
        preparing = self._preparing
        if preparing is None or not preparing.done() or preparing.exception() is not None:
            return None
        return preparing.result()

    def ready_now(self) -> RequestBuilder | None:
        """Return the request builder if the model accepts calls now, else None; never waits.

        A model that makes way for another one accepts no calls.
        """
        return None if self._way is not None else self.loaded()

    def statistics(self) -> EngineStatistics:
        """Return the model's statistics since it was first loaded; never waits."""
        with self._lock:
            engines = [] if self._unloaded else [self.engine.statistics()]
            return total_of([*engines, *self._past])

    def ready(self) -> Future[RequestBuilder]:
        """Return a future of the loaded model; start loading it if necessary.

        While the model makes way, the future ends with its next loading, or at once when it no
        longer has to make way. Raises EngineClosedError.
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
            self._create_engine()
        if self._preparing is None or self.loading_failed:
            self._preparing = self._prompts.submit(self._prepare)
        return self._preparing

    def refuse_if_closed(self) -> None:
        """Raise EngineClosedError if the model is closed for good."""
        if self._closed:
            raise EngineClosedError("the provider is closed")

    def touch(self) -> None:
        """Record that the model was used now."""
        self.last_used = time.monotonic()

    def build(self, builder: RequestBuilder, call: Call) -> Future[list[RunRequest]]:
        """Build a call's requests on the model's prompt thread; see `PromptThread.build`."""
        return self._prompts.build(call.options.client, builder.building(call))

    def watch(self, watcher: Callable[[LoadProgress], None]) -> None:
        """Let `watcher` be called with the progress of loading, on any thread."""
        self.engine.watch(watcher)

    @property
    def in_demand(self) -> bool:
        """Whether the model was loaded and used so recently that it must not be unloaded yet."""
        now = time.monotonic()
        loaded_now = now - self.loaded_at < self._memory.stay_s
        return loaded_now and now - self.last_used < BETWEEN_CALLS_S

    @property
    def makes_way(self) -> bool:
        """Whether the model accepts no new calls, so that its memory becomes free for another."""
        return self._way is not None

    def make_way(self) -> bool:
        """Accept no new calls until the model is unloaded or `call_off`; return whether it does so.

        A model that is pinned, is not loaded, has adapters in use, or was loaded only just now does
        not make way.
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
        """Accept calls again, if the model is making way."""
        with self._lock:
            way, self._way = self._way, None
            if way is not None:
                _follow(self._preparing or self._begin_loading(), way)

    def unload(self, *, on_mlx_thread: bool = False) -> bool:
        """Unload the model if it is idle; return whether it was. The next call loads it again."""
        with self._lock:
            if self.pinned or self.loaded() is None or any(one.in_use for one in self.adapters):
                return False
            if not self.engine.retire():
                return False
            if self._sharded is not None:
                self._sharded.rank.unload()  # before a call can begin the next loading
            past = [*self._past, self.engine.statistics().only_growing()]
            self._past, self._unloaded = [total_of(past)], True
            self._preparing = None
            self._prompts.end()
            engine, way, self._way = self.engine, self._way, None
            if way is not None and self._way_asked:
                _follow(self._begin_loading(), way)  # queued after the model that needs the memory
        if on_mlx_thread:
            engine.let_go()
        else:
            engine.close(0)
        log.info("unloaded `%s`", self.name)
        return True

    def discard(self) -> None:
        """Close a model that is not loaded: accept no more calls."""
        with self._lock:
            self._closed = True
        self._prompts.end()

    def lose(self, error: GenerationError) -> None:
        """Accept no more calls, and end every run with an error; see `Engine.lose`."""
        self._closed = True
        self.engine.lose(error)

    def close(self, grace_s: float | None = None) -> None:
        """Accept no more calls and free the model; see `Engine.close`.

        Prompts that are being built end with an error at once. Loading is stopped, and has
        `grace_s` seconds to notice it.
        """
        grace_s = self._settings.close_grace if grace_s is None else grace_s
        deadline = time.monotonic() + grace_s
        with self._lock:
            self._closed = True
            way, self._way = self._way, None
        if way is not None:
            way.set_exception(EngineClosedError("the provider is closed"))
        if self.loaded() is None:
            self.engine.close(0)
        self._prompts.close(grace_s)
        self.engine.close(max(0.0, deadline - time.monotonic()))

    # The prompt thread and the MLX thread call the following methods.

    def _prepare(self) -> RequestBuilder:
        """Find the files, load the weights on the MLX thread, create tokenizers for this thread."""
        log.info("mlx on %s", describe())
        warn_of_untested_versions()
        source = self.source
        if self._base is not None:
            self._base.ready().result()  # stays loaded, because this adapter is now in use
        tell = self._tell_download
        draft = None if source.draft is None else resolve(source.draft, tell)
        adapter = None if source.adapter is None else resolve_adapter(source.adapter, tell)
        path = resolve(source.path, tell)
        header = self._header = header_of(path)
        self._files = (path, draft, adapter, tokenizer_of(path, header))
        weights = self.engine.load()
        try:
            return self._builder(path, header, weights)
        except Exception:
            if not weights.done() or weights.exception() is None:
                self.engine.close(0)  # frees the weights, which could be neither used nor unloaded
            raise

    def _builder(
        self, path: Path, header: Header | None, weights: Future[ModelFacts]
    ) -> RequestBuilder:
        """Make what builds prompts, while the weights are loaded."""
        template = ChatTemplate(tokenizer_of(path, header))
        image_processor = None if self._sharded else image_processor_of(path)
        template.warm_up()
        model = weights.result()
        self._facts = replace(
            self._facts,
            context_window=model.context_window,
            vision=image_processor is not None,
            tools=template.knows_tools,
            thinking=bool(template.format.thinking(template.tokenizer).end),
        )
        self._warn_of(template)
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

    def _warn_of(self, template: ChatTemplate) -> None:
        """Log what the model's files lack for a chat."""
        if template.stop:
            said = "`%s` has no chat template; turns are marked User: and Assistant:"
            log.warning(said, self.name)
        if missing := what_is_missing(template.tokenizer):
            log.warning("`%s`: %s", self.name, missing)

    def _tell_download(self, done: int, total: int) -> None:
        """Report a download's progress; raise EngineClosedError once closed, which stops it."""
        self.refuse_if_closed()
        self.engine.tell(LoadProgress(done, total))
        if time.monotonic() - self._last_logged > LOG_EVERY_S:
            self._last_logged = time.monotonic()
            log.info("downloading `%s`: %d of %d MiB", self.name, done >> 20, total >> 20)

    def _steps(self) -> Loading:
        assert self._files is not None
        path, draft, adapter, tokenizer = self._files
        if self._sharded is not None:
            return self._sharded.loading(path, tokenizer)
        header, self._header = self._header, None
        base: LoadedModel | None = None
        if self._base is not None:
            base = self._base.engine.model
            if base is None:
                said = f"`{self._base.name}` was unloaded before its adapter could be loaded"
                raise ModelLoadingError(said, model_name=self.name)
        free = self._memory.limit - self._memory.held_by_others(None)
        room = dense_room(self._settings.dequantise, free)
        return loading(
            path,
            draft,
            adapter=adapter,
            base=base,
            tokenizer=tokenizer,
            header=header,
            dense_room=room,
        )


def _follow(loading: Future[RequestBuilder], way: Future[RequestBuilder]) -> None:
    """Let the future `way` end with the result or error of `loading`."""

    def end(done: Future[RequestBuilder]) -> None:
        if (error := done.exception()) is not None:
            way.set_exception(error)
        else:
            way.set_result(done.result())

    loading.add_done_callback(end)
