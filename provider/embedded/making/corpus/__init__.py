"""Text that the embedded model is trained on: made by rules, without end, the same for a seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from provider.embedded.making.corpus import (
    conversations,
    counting,
    stories,
    talk,
    tool_calls,
)
from provider.embedded.making.corpus.document import Document

__all__ = ["Document", "documents"]

# Shares of documents, not of tokens: a story is five times as long as a count. Copying names
# to the letter comes late in training and takes the largest part.
MIX: dict[Callable[[random.Random], Document], float] = {
    tool_calls.document: 0.27,
    counting.drill: 0.15,
    counting.document: 0.15,
    conversations.document: 0.12,
    conversations.introduced: 0.09,
    talk.document: 0.08,
    stories.document: 0.10,
    conversations.verse: 0.04,
}


def documents(seed: int) -> Iterator[Document]:
    """Yield documents without end."""
    rng = random.Random(seed)
    makers, weights = list(MIX), list(MIX.values())
    while True:
        yield rng.choices(makers, weights)[0](rng)
