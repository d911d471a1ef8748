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

    def __init__(self, model: Any, share: Callable[[mx.array], mx.array]):
        self._model = TextModel(model)
        self._share = share
        self.caches = ReplayedCaches(self._model.make_cache, self._run)
        if on_cpu():
            let_caches_attend(model)

    def follow(self, announced: Iterable[Sequence[Operation]]) -> None:
        """Do all that is announced, in order; raises whatever fails."""
        for operations in announced:
            for operation in operations:
                self.caches.apply(operation)

    def _run(self, layers: list[Any], rows: int, width: int) -> None:
        tokens = self._share(mx.zeros((rows, width), mx.uint32))
        mx.async_eval(tokens)  # type: ignore[no-untyped-call] # later layers alone need no tokens
        logits = self._model(tokens, cache=layers)
        if width == 1:
            mx.async_eval(logits)  # type: ignore[no-untyped-call]
        else:
            mx.eval([state_of(layer) for layer in layers])
