"""A prompt with several answers, which is prefilled once for all of them.

Pure policy: caches are opaque, sizes are in bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "SharedPrompt",
    "SharedPrompts",
]


@dataclass(eq=False)
class SharedPrompt:
    """The state shared by the runs of one prompt; the first prefills it for the others.

    Only the MLX thread uses it, once the runs are submitted.
    """

    # Caches of the prompt without its last two tokens, for the other runs.
    caches: list[Any] | None = None
    length: int = 0  # tokens in these caches
    nbytes: int = 0  # size of these caches
    leader: int | None = None  # key of the run that prefills the prompt
    ready: bool = False  # whether the other runs may begin
    others: set[int] = field(default_factory=set)  # keys of the runs that wait for the leader

    def begun(self, key: int) -> None:
        """Note that a run does not wait any more; after the last one, free the caches."""
        self.others.discard(key)
        if not self.others and self.ready:
            self.caches = None

    def left_to(self, key: int) -> int:
        """Return the size of the caches if a run is the last that they are kept for, else 0.

        That run begins with the caches themselves, the others with copies.
        """
        return self.nbytes if self.caches is not None and self.others == {key} else 0


class SharedPrompts:
    """The prompts of one model whose caches are kept for answers that have not begun."""

    def __init__(self) -> None:
        self._kept: list[SharedPrompt] = []  # the longest kept first

    @property
    def nbytes(self) -> int:
        """How many bytes the caches of all prompts take."""
        return sum(one.nbytes for one in self._kept if one.caches is not None)

    def keep(self, shared: SharedPrompt, caches: list[Any], length: int, nbytes: int) -> None:
        """Keep caches of a prompt's first `length` tokens until its last answer begins."""
        shared.caches, shared.length, shared.nbytes = caches, length, nbytes
        self._tidy()
        self._kept.append(shared)

    def shrink(self, nbytes: int, spared: SharedPrompt | None = None) -> None:
        """Drop the caches kept longest, but for those of `spared`, until `nbytes` are left.

        The answers that they were kept for will read their prompt themselves.
        """
        for one in list(self._kept):
            if self.nbytes <= nbytes:
                return
            if one is not spared:
                one.caches = None

    def _tidy(self) -> None:
        """Forget the prompts whose last answer has begun, or whose caches were dropped."""
        self._kept = [one for one in self._kept if one.caches is not None]
