"""A prompt with several answers, which is prefilled once for all of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "SharedPrompt",
]


@dataclass(eq=False)
class SharedPrompt:
    """The state shared by the runs of one prompt; the first prefills it for the others.

    Only the MLX thread uses it, once the runs are submitted.
    """

    # Caches of the prompt without its last two tokens, for the other runs.
    caches: list[Any] | None = None
    length: int = 0  # tokens in these caches
    leader: int | None = None  # key of the run that prefills the prompt
    ready: bool = False  # whether the other runs may begin
    others: set[int] = field(default_factory=set)  # keys of the runs that wait for the leader

    def begun(self, key: int) -> None:
        """Note that a run does not wait any more; after the last one, free the caches."""
        self.others.discard(key)
        if not self.others and self.ready:
            self.caches = None
