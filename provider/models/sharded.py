"""One model whose parts are in several processes: what rank 0 serves, and what the others do."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, assert_never

from provider.caches.kinds import is_always_trimmable
from provider.engine.loading import RECHECK_S
from provider.engine.model import LoadedModel, Loading, LoadProgress
from provider.interface import InvalidParameterError, ModelLoadingError
from provider.models.loading import identity_of
from provider.models.source import resolve
from provider.runtime.mlx import clear_streams_at_thread_end, describe, tree_flatten
from provider.runtime.mlx_lm import make_prompt_cache
from provider.settings import EngineSettings
from provider.sharding.following import FollowingModel
from provider.sharding.frames import Do, Load, Unload
from provider.sharding.leading import LeadingModel
from provider.sharding.parts import load_part, versions
from provider.sharding.ranks import FollowingRank, LeadingRank

__all__ = ["Sharded", "facts_of", "follow", "refuse_beside"]

# What a model in parts can't have: other models, and caches of which a process knows no part.
ALONE = ("adapter", "draft_model", "allow_any_model", "kv_bits", "prefix_cache_dir")

TOLD_EVERY_S = 10.0  # seconds between log lines on ranks that are waited for
LoadPart = Callable[[Path, str, Any], tuple[Any, dict[str, Any]]]

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Sharded:
    """How rank 0 serves a model of which it has one part; `how` is `tensor` or `pipeline`."""

    how: str
    rank: LeadingRank
    load: LoadPart = load_part
    _loaded_once: bool = False

    def settings(self, settings: EngineSettings) -> EngineSettings:
        """Return an engine's settings, with the memory that the smallest process has."""
        least = min(self.rank.room, settings.memory_bytes or self.rank.room)
        return replace(settings, memory_bytes=least)

    def loading(self, path: Path, tokenizer: Any) -> Loading:
        """Load this process's part in steps, once all processes have found theirs.

        Raises ModelLoadingError.
        """
        total = sum(one.stat().st_size for one in path.glob("model*.safetensors"))
        part = total // self.rank.group.size()
        yield LoadProgress(0, part)
        yield from self._meeting(path, part)
        self.rank.load()
        try:
            model, config = self.load(path, self.how, self.rank.group)
        except Exception as error:
            # At a start the process ends with this error, and the others with the process.
            if self._loaded_once:
                self.rank.fail(str(error))
            raise
        self._loaded_once = True
        yield LoadProgress(part, part)
        config = config.get("text_config") or config
        return LoadedModel(
            model=LeadingModel(
                model, self.rank.journal, self.rank.tell, self.rank.share, self.rank.fail
            ),
            tokenizer=tokenizer,
            context_window=config.get("max_position_embeddings"),
            vocabulary=int(config.get("vocab_size") or len(tokenizer)),
            trimmable=is_always_trimmable(make_prompt_cache(model)),
            weights=sum(int(array.nbytes) for _, array in tree_flatten(model.parameters())),
        )

    def _meeting(self, path: Path, part: int) -> Generator[LoadProgress, None, None]:
        """Wait until all processes have found the same model."""
        told = time.monotonic()
        while awaited := self.rank.awaited:
            if time.monotonic() - told > TOLD_EVERY_S:
                told = time.monotonic()
                log.info("waiting for the files of rank %s", ", ".join(map(str, awaited)))
            time.sleep(RECHECK_S)
            yield LoadProgress(0, part)
        if other := self.rank.difference(facts_of(path, self.how)):
            raise ModelLoadingError(f"`{path.name}` can't be shared: {other}", model_name=path.name)


def facts_of(path: Path, how: str) -> dict[str, str]:
    """Return what all processes must have in common to share a model, by its name."""
    return {"`--shard`": how, **versions(), "the model's files as": identity_of(path)[:12]}


def refuse_beside(config: Mapping[Any, Any]) -> None:
    """Raise InvalidParameterError for a setting that a model in parts can't have."""
    for name in ALONE:
        if config.get(name):
            raise _refused(name, config[name])
    models = config.get("model")
    if isinstance(models, list | tuple) and len(models) > 1:
        raise _refused("model", models)


def _refused(name: str, value: Any) -> InvalidParameterError:
    said = "more than one `model`" if name == "model" else f"`{name}`"
    return InvalidParameterError(name, value, f"`shard` can't be used with {said}")


def follow(rank: FollowingRank, how: str, model: str | None, load: LoadPart = load_part) -> None:
    """Do with this process's part what rank 0 does with its own, until it ends.

    Raises ModelLoadingError or ModelNotFoundError, or whatever a forward pass raises; rank 0 is
    told of it. Signals are handled meanwhile if this is the main thread, since a thread of its own
    makes all calls of mlx.
    """
    with ThreadPoolExecutor(1, "mlx-follow", clear_streams_at_thread_end) as thread:
        thread.submit(_follow, rank, how, model, load).result()


def _follow(rank: FollowingRank, how: str, model: str | None, load: LoadPart) -> None:
    try:
        path = resolve(model)
        rank.has(facts_of(path, how))
        following = FollowingModel(rank.share)
        for told in rank.told():
            match told:
                case Load():
                    following.free()
                    part, _ = load(path, how, rank.group)
                    following.use(part)
                    say = "rank %d of %d has its part of `%s`, on %s"
                    log.info(say, rank.rank, rank.group.size(), path.name, describe())
                case Unload():
                    following.free()
                case Do(operations):
                    following.follow([operations])
                case _:
                    assert_never(told)
    except BaseException as error:
        rank.failed(str(error) or type(error).__name__)
        raise
