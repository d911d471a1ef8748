"""The model of every process but the first: makes the forward passes that the first announces."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from provider.caches.attention import let_caches_attend
from provider.caches.kinds import state_of
from provider.caches.operations import Operation
from provider.caches.replayed import ReplayedCaches
from provider.engine.model import TextModel
from provider.runtime.mlx import mx, on_cpu

__all__ = ["FollowingModel"]


class FollowingModel:
    """A process's part of a model, and its parts of all KV caches.

    `share` takes tokens of a forward pass, which are all 0 here, and returns the first process's.
    """

    def __init__(self, share: Callable[[mx.array], mx.array], model: Any = None):
        self._share = share
        self._model: TextModel | None = None
        self.caches = ReplayedCaches(self._make, self._run)
        if model is not None:
            self.use(model)

    def use(self, model: Any) -> None:
        """Make the next forward passes with this model of mlx-lm."""
        self._model = TextModel(model)
        if on_cpu():
            let_caches_attend(model)

    def free(self) -> None:
        """Free the model; its KV caches are freed one by one, as they are announced."""
        self._model = None
        mx.clear_cache()

    def follow(self, announced: Iterable[Sequence[Operation]]) -> None:
        """Do all that is announced, in order; raises whatever fails."""
        for operations in announced:
            for operation in operations:
                self.caches.apply(operation)

    @property
    def _loaded(self) -> TextModel:
        if self._model is None:
            raise RuntimeError("a forward pass was announced before the model")
        return self._model

    def _make(self) -> list[Any]:
        return self._loaded.make_cache()

    def _run(self, layers: list[Any], rows: int, width: int) -> None:
        tokens = self._share(mx.zeros((rows, width), mx.uint32))
        mx.async_eval(tokens)  # type: ignore[no-untyped-call] # later layers alone need no tokens
        logits = self._loaded(tokens, cache=layers)
        if width == 1:
            mx.async_eval(logits)  # type: ignore[no-untyped-call]
        else:
            mx.eval([state_of(layer) for layer in layers])
