"""What the engine asks of a model, and what it tells of one.

A model maps tokens and KV caches to logits, as mlx-lm's models do. Some want more with a forward
pass: embeddings of images, positions in three dimensions. What goes along is asked of every model;
one that reads text alone answers with nothing. All of it belongs to the MLX thread.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from provider.engine.rows import Row
from provider.runtime.mlx_lm import make_prompt_cache

__all__ = [
    "LoadProgress",
    "LoadedModel",
    "Loading",
    "Model",
    "ModelFacts",
    "PromptEmbeddings",
    "TextModel",
    "as_model",
]


@dataclass(frozen=True)
class ModelFacts:
    """What other threads need to know of a model; it holds no weights."""

    context_window: int | None  # tokens, None if the model's configuration does not say
    trimmable: bool  # whether a cache can be cut back to any of its beginnings
    vocabulary: int  # number of tokens


@dataclass
class LoadedModel:
    """A model on the MLX thread, with the tokenizer instance that belongs to that thread."""

    model: Any  # a Model; one of mlx-lm's becomes one
    tokenizer: Any
    context_window: int | None  # tokens, None if the model's configuration does not say
    vocabulary: int  # number of tokens
    trimmable: bool  # whether a cache can be cut back to any of its beginnings
    identity: str = ""  # digest of the weights and of all else that KV caches depend on
    draft: Any = None  # a smaller model that proposes tokens
    weights: int = 0  # bytes, without those that another model shares

    def __post_init__(self) -> None:
        self.model = as_model(self.model)

    @property
    def facts(self) -> ModelFacts:
        """What other threads may know."""
        return ModelFacts(self.context_window, self.trimmable, self.vocabulary)


@dataclass(frozen=True, eq=False)
class PromptEmbeddings:
    """A prompt with images as the language model gets it, but for its last token."""

    embeddings: Any  # (tokens, width)
    positions: Any  # (3, tokens), None where the model counts by itself
    delta: int  # difference between later tokens' positions and their places
    extras: Mapping[str, Any]  # arguments that the whole prompt must be read with

    @property
    def length(self) -> int:
        """How many tokens it covers."""
        return int(self.embeddings.shape[0])


class Model(Protocol):
    """What the batch calls."""

    def make_cache(self) -> list[Any]:
        """Return new KV caches for one sequence, one a layer."""

    def __call__(self, tokens: Any, cache: Any = None, **extras: Any) -> Any:
        """Map tokens `(rows, n)` to logits `(rows, n, vocabulary)`; the caches grow by n."""

    def warm_up(self) -> None:
        """Find out what is known only by running it, once the weights are there."""

    def embed(self, images: Any) -> PromptEmbeddings:
        """Return a prompt with images, as an image processor has made them, in embeddings."""

    def chunk_extras(
        self, rows: Sequence[Row], counts: Sequence[int], tokens: Sequence[Sequence[int]]
    ) -> dict[str, Any]:
        """Return what goes with the next `counts` tokens of each row's sequence, padded."""

    def step_extras(self, rows: Sequence[Row | None]) -> dict[str, Any]:
        """Return what goes with one token of each row; None is a slot without a row."""

    def draft_extras(self, row: Row, count: int) -> dict[str, Any]:
        """Return what goes with the next `count` tokens of one row, proposed by a draft model."""


class TextModel:
    """A model of mlx-lm, which needs nothing but tokens and caches."""

    def __init__(self, model: Any):
        self.model = model

    def __getattr__(self, name: str) -> Any:
        if name == "model":  # missing while it is being copied
            raise AttributeError(name)
        return getattr(self.model, name)

    def make_cache(self) -> list[Any]:
        """Return new KV caches, as mlx-lm makes them."""
        return list(make_prompt_cache(self.model))

    def __call__(self, tokens: Any, cache: Any = None, **extras: Any) -> Any:
        """Map tokens `(rows, n)` to logits `(rows, n, vocabulary)`."""
        return self.model(tokens, cache=cache, **extras)

    def warm_up(self) -> None:
        """Do nothing."""

    def embed(self, images: Any) -> PromptEmbeddings:
        """Never called: a text model has no image processor."""
        raise AssertionError("a text model was given images")

    def chunk_extras(
        self, _rows: Sequence[Row], _counts: Sequence[int], _tokens: Sequence[Sequence[int]]
    ) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def step_extras(self, _rows: Sequence[Row | None]) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def draft_extras(self, _row: Row, _count: int) -> dict[str, Any]:
        """Return nothing."""
        return {}


def as_model(model: Any) -> Model:
    """Return what the batch can call: the model itself, or one of mlx-lm's with what it lacks."""
    return model if hasattr(model, "step_extras") else TextModel(model)


Loading = Generator["LoadProgress", None, LoadedModel]


@dataclass(frozen=True)
class LoadProgress:
    """`done` of `total` bytes are there: of files that are downloaded, then of weights."""

    done: int
    total: int
