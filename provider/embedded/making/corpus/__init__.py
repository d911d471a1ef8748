"""Text that the embedded model is trained on: made by rules, without end, the same for a seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from provider.embedded.making.corpus import counting, stories, talk, tool_calls
from provider.embedded.making.corpus.document import Document

__all__ = ["Document", "documents"]

# Shares of documents, not of tokens: a story is five times as long as a count. Copying arguments
# to the letter and counting come late in training and take the largest parts.
MIX: dict[Callable[[random.Random], Document], float] = {
    counting.document: 0.30,
    tool_calls.document: 0.38,
    stories.document: 0.17,
    talk.document: 0.15,
}


def documents(seed: int) -> Iterator[Document]:
    """Yield documents without end."""
    rng = random.Random(seed)
    makers, weights = list(MIX), list(MIX.values())
    while True:
        yield rng.choices(makers, weights)[0](rng)
