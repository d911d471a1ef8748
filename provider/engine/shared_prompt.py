"""One prompt with several answers: read once, and each answer begins where it ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = [
    "SharedPrompt",
]


@dataclass(eq=False)
class SharedPrompt:
    """What the runs of one prompt share: the first reads it, the others begin where it has ended.

    The MLX thread's own, once it was submitted.
    """

    caches: list[Any] | None = None  # of the prompt without its last tokens, for the others
    length: int = 0  # tokens in them
    leader: int | None = None  # the key of the run that reads
    ready: bool = False  # the others may begin
    others: int = 0  # that have not begun
