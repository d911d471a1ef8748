"""What the engine asks of a model, and what it tells of one."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

__all__ = [
    "LoadProgress",
    "LoadedModel",
    "Loading",
    "ModelFacts",
]


@dataclass(frozen=True)
class ModelFacts:
    """What other threads need to know of a model; it holds no weights."""

    context_window: int | None  # tokens, None if the model's configuration does not say
    trimmable: bool  # whether a cache can be cut back to any of its beginnings
    vocabulary: int  # entries


@dataclass
class LoadedModel:
    """A model on the MLX thread, with the tokenizer instance that belongs to that thread."""

    model: Any
    tokenizer: Any
    context_window: int | None  # tokens, None if the model's configuration does not say
    vocabulary: int  # entries
    trimmable: bool  # whether a cache can be cut back to any of its beginnings
    identity: str = ""  # of the weights and what else decides what a KV cache holds
    draft: Any = None  # a smaller model that proposes tokens
    weights: int = 0  # bytes, without those that another model shares

    @property
    def facts(self) -> ModelFacts:
        """What other threads may know."""
        return ModelFacts(self.context_window, self.trimmable, self.vocabulary)


Loading = Generator["LoadProgress", None, LoadedModel]


@dataclass(frozen=True)
class LoadProgress:
    """`done` of `total` bytes are there: of files that are downloaded, then of weights."""

    done: int
    total: int
