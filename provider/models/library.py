"""The models of one process by name; all share one MLX thread and one memory pool.

A model is loaded by the first call that names it. If memory does not suffice, the least recently
used idle model is unloaded. If all models are in use, one of them makes way: its runs finish, and
new calls wait until it is loaded again. Models that are idle for long may be unloaded too.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from provider.engine.engine import memory_limit
from provider.engine.memory_pool import MemoryPool
from provider.engine.mlx_thread import MlxThread
from provider.engine.statistics import EngineStatistics, total_of
from provider.interface import InvalidParameterError, ModelInfo, UnsupportedModelError
from provider.models.served_model import ServedModel
from provider.models.sharded import Sharded
from provider.models.source import ModelSource, model_name
from provider.settings import EngineSettings

__all__ = ["Library", "sources_of"]

MAX_UNLISTED = 256  # remembered models that clients named by folder or id
IDLE_CHECKS = 4  # number of checks for idle models within the idle time


class Library:
    """Models by name; the first one is the default."""

    def __init__(
        self,
        sources: Sequence[ModelSource],
        settings: EngineSettings,
        *,
        pinned: Iterable[str] = (),
        idle_s: float | None = None,
        allow_any: bool = False,
        sharded: Sharded | None = None,
    ):
        self._sharded = sharded  # of the only model
        self._settings = settings if sharded is None else sharded.settings(settings)
        self._allow_any = allow_any
        self._thread = MlxThread()
        self._memory = MemoryPool(memory_limit(self._settings))
        self._memory.unload = self._unload_one
        self._memory.make_way = self._make_way
        self._memory.call_off = self._call_off
        self._lock = threading.Lock()  # guards the next two attributes
        self._models: dict[str, ServedModel] = {}
        self._past: list[EngineStatistics] = []  # total statistics of forgotten models
        self._named = {source.name for source in sources}
        pins = set(pinned)
        for source in sources:
            self._add(source, pinned=source.name in pins)
        for name in pins - self._named:
            said = f"`pin`: `{name}` is not served; {_names(self._named)}"
            raise InvalidParameterError("pin", name, said)
        self.default = self._models[sources[0].name]
        if sharded is not None:
            sharded.rank.on_lost = self.default.lose
            sharded.rank.watchdog.in_turn_since = lambda: self.default.engine.in_turn_since
        self._closing = threading.Event()
        if idle_s is not None:
            threading.Thread(
                target=self._unload_idle, args=(idle_s,), name="mlx-idle", daemon=True
            ).start()

    @property
    def at_start(self) -> list[ServedModel]:
        """The models that are loaded at start: the default model and the pinned ones."""
        pinned = [served for served in self._all() if served.pinned]
        return [self.default, *(served for served in pinned if served is not self.default)]

    def _all(self) -> list[ServedModel]:
        with self._lock:
            return list(self._models.values())

    def _add(self, source: ModelSource, *, pinned: bool = False) -> ServedModel:
        base = None if source.base is None else self._models.get(source.base)
        if source.base is not None and base is None:
            said = f"`adapter`: the base `{source.base}` is not served; {_names(self._models)}"
            raise InvalidParameterError("adapter", source.name, said)
        served = ServedModel(
            source,
            self._settings,
            self._thread,
            self._memory,
            base=base,
            pinned=pinned,
            sharded=self._sharded,
        )
        self._models[source.name] = served
        return served

    def find(self, name: str | None) -> ServedModel:
        """Return a model by name, folder or hub id; None names the default model.

        Raises UnsupportedModelError if it is not served and clients must not name others.
        """
        if name is None:
            return self.default
        with self._lock:
            found = self._models.get(name)
            if found is not None:
                return found
            for served in self._models.values():
                if served.source.path == name and served.source.base is None:
                    return served
            if not self._allow_any:
                raise UnsupportedModelError(f"`{name}` is not served; {_names(self._models)}")
            self._forget_failed()
            return self._add(ModelSource(name, name))

    def _forget_failed(self) -> None:
        """Forget unlisted models that failed to load, or are idle if there are too many."""
        others = [served for name, served in self._models.items() if name not in self._named]
        for served in others:
            if served.loading_failed or (len(others) >= MAX_UNLISTED and not served.in_use):
                served.discard()
                self._past = [total_of([*self._past, served.statistics().only_growing()])]
                del self._models[served.name]

    def infos(self) -> list[ModelInfo]:
        """Return the public information on each model."""
        return [served.info for served in self._all()]

    def statistics(self) -> EngineStatistics:
        """Return the statistics of all models together."""
        with self._lock:
            served = list(self._models.values())
            return total_of([*(one.statistics() for one in served), *self._past])

    def close(self, grace_s: float | None = None) -> None:
        """Free all models within `grace_s` seconds and end the MLX thread. Idempotent.

        See `Engine.close`.
        """
        self._closing.set()
        if self._sharded is not None and self.default.loaded() is None:
            self._sharded.rank.close()  # first, because they may wait for this process
        served = self._all()
        deadline = time.monotonic() + (
            self._settings.close_grace if grace_s is None else max(0.0, grace_s)
        )
        for model in served:
            model.close(max(0.0, deadline - time.monotonic()))
        self._thread.close()
        if self._sharded is not None:
            self._sharded.rank.close()

    def _unload_one(self) -> bool:
        """Unload the least recently used idle model; return whether there was one.

        Must be called on the MLX thread.
        """
        idle = [served for served in self._all() if served.makes_way or not served.in_demand]
        oldest_first = sorted(idle, key=lambda served: served.last_used)
        return any(served.unload(on_mlx_thread=True) for served in oldest_first)

    def _make_way(self) -> None:
        """Make the model that has been loaded longest accept no new calls, so that it is unloaded.

        Does nothing while another model is in that state. Must be called on the MLX thread.
        `MemoryPool.reserving` limits how long a load waits for it.
        """
        longest_first = sorted(self._all(), key=lambda served: served.loaded_at)
        if not any(served.makes_way for served in longest_first):
            any(served.make_way() for served in longest_first)

    def _call_off(self) -> None:
        for served in self._all():
            served.call_off()

    def _unload_idle(self, idle_s: float) -> None:
        while not self._closing.wait(max(0.05, idle_s / IDLE_CHECKS)):
            for served in self._all():
                if time.monotonic() - served.last_used >= idle_s and not served.engine.runs:
                    served.unload()


def sources_of(
    models: Sequence[str | None], adapters: Sequence[str] = (), draft: str | None = None
) -> list[ModelSource]:
    """Return the sources of the models and adapters in a configuration.

    A model is a folder or a hub id, optionally after `NAME=`. An adapter is `NAME=BASE:FOLDER` or
    `NAME=BASE:HUB_ID`. `draft` is the first model's draft model. Raises InvalidParameterError.
    """
    sources = []
    for number, text in enumerate(models or [None]):
        name, path = _named(text)
        sources.append(ModelSource(name, path, draft if number == 0 else None))
    for text in adapters:
        name, equals, rest = text.partition("=")
        base, folder = _base_and_folder(rest, [source.name for source in sources])
        if not (name and equals and base and folder):
            said = f"`adapter` must be NAME=BASE:FOLDER, not `{text}`"
            raise InvalidParameterError("adapter", text, said)
        of = next((source for source in sources if source.name == base), None)
        if of is not None and of.base is not None:
            said = f"`adapter`: the base `{base}` is an adapter itself"
            raise InvalidParameterError("adapter", text, said)
        path = None if of is None else of.path
        sources.append(ModelSource(name, path, None, base, folder))
    names = [source.name for source in sources]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        said = f"`model`: two models are named `{twice}`; give one another name, as NAME=PATH"
        raise InvalidParameterError("model", twice, said)
    return sources


def _base_and_folder(text: str, names: Sequence[str]) -> tuple[str, str]:
    """Split `BASE:FOLDER` after the longest of `names`, because a name may contain colons."""
    named = [name for name in names if text.startswith(f"{name}:")]
    base = max(named, key=len, default=text.partition(":")[0])
    return base, text[len(base) + 1 :]


def _named(text: str | None) -> tuple[str, str | None]:
    if text is None:
        return model_name(None), None
    name, equals, path = text.partition("=")
    if equals and name and path and not Path(text).exists():
        return name, path
    return model_name(text), text


def _names(names: Iterable[str]) -> str:
    listed = sorted(names)
    are = "is" if len(listed) == 1 else "are"
    return f"{', '.join(f'`{name}`' for name in listed[:20])} {are}"
