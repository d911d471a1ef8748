"""One model whose parts are in several processes: what rank 0 serves, and what the others do."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from provider.caches.kinds import is_always_trimmable
from provider.engine.model import LoadedModel, Loading, LoadProgress
from provider.interface import InvalidParameterError, ModelLoadingError
from provider.models.source import resolve
from provider.runtime.mlx import describe, tree_flatten
from provider.runtime.mlx_lm import make_prompt_cache
from provider.settings import EngineSettings
from provider.sharding.following import FollowingModel
from provider.sharding.leading import LeadingModel
from provider.sharding.parts import load_part
from provider.sharding.ranks import FollowingRank, LeadingRank

__all__ = ["Sharded", "follow", "refuse_beside"]

# What a model in parts can't have: other models, and caches of which a process knows no part.
ALONE = ("adapter", "draft_model", "allow_any_model", "idle_unload", "kv_bits", "prefix_cache_dir")

LoadPart = Callable[[Path, str, Any], tuple[Any, dict[str, Any]]]

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Sharded:
    """How rank 0 serves a model of which it has one part; `how` is `tensor` or `pipeline`."""

    how: str
    rank: LeadingRank
    load: LoadPart = load_part
    _begun: bool = False

    def settings(self, settings: EngineSettings) -> EngineSettings:
        """Return an engine's settings, with the memory that the smallest process has."""
        least = min(self.rank.room, settings.memory_bytes or self.rank.room)
        return replace(settings, memory_bytes=least)

    def loading(self, path: Path, tokenizer: Any) -> Loading:
        """Load this process's part in steps. Raises ModelLoadingError, the second time always."""
        if self._begun:
            raise ModelLoadingError("the parts of a model are loaded once; start all ranks again")
        self._begun = True
        total = sum(one.stat().st_size for one in path.glob("model*.safetensors"))
        part = total // self.rank.group.size()
        yield LoadProgress(0, part)
        model, config = self.load(path, self.how, self.rank.group)
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
    told of it.
    """
    try:
        path = resolve(model)
        part, _ = load(path, how, rank.group)
        log.info("rank %d of %d has its part of `%s`, on %s", *_of(rank), path.name, describe())
        FollowingModel(part, rank.share).follow(rank.announced())
    except BaseException as error:
        rank.failed(str(error))
        raise


def _of(rank: FollowingRank) -> tuple[int, int]:
    return rank.rank, int(rank.group.size())
