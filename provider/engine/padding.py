"""How many positions the rows of a batch have beyond their own, to be as long as the longest row.

In one forward pass all rows have as many positions as the longest of them. So beside a prompt of
30,000 tokens a short answer takes as much memory, whatever was promised to it. Rows of uneven
length share a pass while memory allows that, and else have passes of their own.

Pure policy: lengths are in tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

from provider.engine.memory_budget import STEP

__all__ = ["padding"]


def padding(lengths: Sequence[int]) -> int:
    """Return the positions to spare of rows with so many tokens in one forward pass."""
    own = [-(-length // STEP) * STEP for length in lengths]
    return len(own) * max(own, default=0) - sum(own)
