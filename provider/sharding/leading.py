"""The model of the first process: what the engine does with it, the other processes do too.

Every forward pass is announced to the others with all that was done with KV caches before it, and
then made by all together. Only the first process samples: the tokens that a pass reads go from it
to the others in the pass itself, so that seeds, constraints and penalties need no agreement, and a
row that has been removed here is in no later pass anywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from provider.caches.mirrored import MirroredCache
from provider.caches.operations import Journal
from provider.engine.model import TextModel
from provider.runtime.mlx import mx

__all__ = ["LeadingModel"]


class LeadingModel(TextModel):
    """The first process's part of a model.

    `tell` sends the journal to the others before a pass over so many tokens. `share` takes the
    tokens of a forward pass, and returns them as all processes get them. `fail` ends all processes,
    because of an error.
    """

    def __init__(
        self,
        model: Any,
        journal: Journal,
        tell: Callable[[int], None],
        share: Callable[[mx.array], mx.array],
        fail: Callable[[str], None],
    ):
        super().__init__(model)
        self._journal = journal
        self._tell = tell
        self._share = share
        self._fail = fail

    def make_cache(self) -> list[Any]:
        """Return new KV caches, as mlx-lm makes them, and one that notes what is done with them."""
        return [*super().make_cache(), MirroredCache.empty(self._journal)]

    def __call__(self, tokens: Any, cache: Any = None, **extras: Any) -> Any:
        """Map tokens `(rows, n)` to logits `(rows, n, vocabulary)`, if n is 1.

        Longer passes have no logits, since the processes must compute the same: with n of 1 all
        that is needed for the logits, else all that is needed for the caches.
        """
        *layers, mirror = cache
        rows, width = tokens.shape
        self._journal.add(mirror.forward(rows, width))
        self._tell(rows * width)
        shared = self._share(tokens.astype(mx.uint32))
        mx.async_eval(shared)  # type: ignore[no-untyped-call] # later layers alone need no tokens
        logits = super().__call__(shared, cache=layers, **extras)
        if width > 1:
            return None
        mx.async_eval(logits)  # type: ignore[no-untyped-call]
        return logits

    def failed(self, error: Exception) -> None:
        """End all processes: the others may have computed what failed here."""
        self._fail(f"a forward pass failed: {error}")
