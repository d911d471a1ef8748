"""The interface of a model to the engine, and the facts about a loaded model.

A model maps tokens and KV caches to logits, as mlx-lm's models do. A vision model needs further
arguments for a forward pass: embeddings of images, positions in three dimensions. Every model is
asked for these `extras`; a text model returns none. Only the MLX thread uses a model.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from provider.engine.rows import Row
from provider.runtime.mlx import fusing
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
    """The facts about a model that other threads may read; it holds no weights."""

    context_window: int | None  # tokens, None if the model's configuration does not say
    trimmable: bool  # whether a cache can be trimmed to any shorter length
    vocabulary: int  # number of tokens


@dataclass
class LoadedModel:
    """A model on the MLX thread, with the tokenizer instance that belongs to that thread."""

    model: Any  # a Model; a plain model of mlx-lm is wrapped
    tokenizer: Any
    context_window: int | None  # tokens, None if the model's configuration does not say
    vocabulary: int  # number of tokens
    trimmable: bool  # whether a cache can be trimmed to any shorter length
    identity: str = ""  # digest of the weights and of everything else that KV caches depend on
    draft: Any = None  # a smaller model that proposes tokens
    weights: int = 0  # bytes, without those that another model shares

    def __post_init__(self) -> None:
        self.model = as_model(self.model)

    @property
    def parameters(self) -> list[Any]:
        """The arrays of the model and of its draft model, in nested lists and dicts."""
        models = [self.model] if self.draft is None else [self.model, self.draft]
        return [model.parameters() for model in models]

    @property
    def facts(self) -> ModelFacts:
        """The facts that other threads may read."""
        return ModelFacts(self.context_window, self.trimmable, self.vocabulary)


@dataclass(frozen=True, eq=False)
class PromptEmbeddings:
    """The embeddings of a prompt with images, without its last token."""

    embeddings: Any  # (tokens, width)
    positions: Any  # (3, tokens), None if the model counts positions itself
    delta: int  # position minus index, for all tokens after the prompt
    extras: Mapping[str, Any]  # arguments of a forward pass that must read the whole prompt

    @property
    def length(self) -> int:
        """How many tokens it covers."""
        return int(self.embeddings.shape[0])


class Model(Protocol):
    """The methods of a model that the batch calls."""

    def make_cache(self) -> list[Any]:
        """Return new KV caches for one sequence, one a layer."""

    def __call__(self, tokens: Any, cache: Any = None, **extras: Any) -> Any:
        """Map tokens `(rows, n)` to logits `(rows, n, vocabulary)`; the caches grow by n."""

    def warm_up(self) -> None:
        """Run the model once after loading, to find out what later calls must know of it."""

    def embed(self, images: Any) -> PromptEmbeddings:
        """Return the embeddings of a prompt with processed images."""

    def chunk_extras(
        self, rows: Sequence[Row], counts: Sequence[int], tokens: Sequence[Sequence[int]]
    ) -> dict[str, Any]:
        """Return the extra arguments for prefilling the next `counts` tokens of each row."""

    def step_extras(self, rows: Sequence[Row | None]) -> dict[str, Any]:
        """Return the extra arguments for one token of each row; None is an empty slot."""

    def draft_extras(self, row: Row, count: int) -> dict[str, Any]:
        """Return the extra arguments for verifying a row's next `count` tokens, from a draft."""

    def failed(self, error: Exception) -> None:
        """Note that a forward pass has failed, before its rows are tried again."""


class TextModel:
    """A model of mlx-lm that needs only tokens and caches."""

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
        with fusing():
            return self.model(tokens, cache=cache, **extras)

    def warm_up(self) -> None:
        """Do nothing."""

    def embed(self, images: Any) -> PromptEmbeddings:
        """Never called: a text model has no image processor."""
        raise AssertionError("a text model was given images")

    def chunk_extras(
        self, _rows: Sequence[Row], _counts: Sequence[int], _tokens: Sequence[Sequence[int]]
    ) -> dict[str, Any]:
        """Return no extra arguments."""
        return {}

    def step_extras(self, _rows: Sequence[Row | None]) -> dict[str, Any]:
        """Return no extra arguments."""
        return {}

    def draft_extras(self, _row: Row, _count: int) -> dict[str, Any]:
        """Return no extra arguments."""
        return {}

    def failed(self, error: Exception) -> None:
        """Do nothing: no other process has made the pass."""


def as_model(model: Any) -> Model:
    """Return a Model: the given one, or a TextModel around a plain model of mlx-lm."""
    return model if hasattr(model, "step_extras") else TextModel(model)


Loading = Generator["LoadProgress", None, LoadedModel]


@dataclass(frozen=True)
class LoadProgress:
    """The progress of loading in bytes: first of the files' download, then of the weights.

    While `warming_up`, it is that of forward passes, which are made for the first requests.
    """

    done: int
    total: int
    warming_up: bool = False
