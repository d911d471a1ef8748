"""One prompt with several answers: read once, and each answer begins where it ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "SharedPrompt",
]


@dataclass(eq=False)
class SharedPrompt:
    """What the runs of one prompt share: the first reads it, the others begin where it has ended.

    The MLX thread's own, once it was submitted.
    """

    # Caches of the prompt without its last tokens, for the other runs.
    caches: list[Any] | None = None
    length: int = 0  # tokens in these caches
    leader: int | None = None  # key of the run that reads the prompt
    ready: bool = False  # whether the other runs may begin
    others: set[int] = field(default_factory=set)  # keys of runs that wait for it to be read

    def begun(self, key: int) -> None:
        """Note that a run does not wait any more; the caches are for those that do."""
        self.others.discard(key)
        if not self.others and self.ready:
            self.caches = None
