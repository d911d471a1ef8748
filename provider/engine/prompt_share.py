"""How much of the engine's time the prompts of one client may take while others' runs decode.

A chunk beside streams is bounded, so that no gap is long. But a client that sends prompt after
prompt makes every step a chunk and a step, and others' answers several times as slow. A few long
prompts are usual, and read at once; who goes on to send them has a share.

Pure policy: no clock, no library. Times are in seconds, by the worker's clock.
"""

from __future__ import annotations

from collections.abc import Hashable

__all__ = ["BURST_S", "PromptShare"]

# What a client's prompts may take before its share is all that they have: about what a large model
# on a small machine takes for a prompt of 8,000 tokens.
BURST_S = 15.0
TIDY = 256  # clients that are remembered, after which those that owe nothing are forgotten


class PromptShare:
    """Counts the time of chunks by client. With a share of 1 nothing is counted."""

    def __init__(self, share: float):
        self._share = share
        self._paid: dict[Hashable, float] = {}  # when a client's share makes up for its prompts

    def took(self, client: Hashable, seconds: float, now: float) -> None:
        """Record that a client's prompts took so long beside others' runs, until now."""
        if self._share >= 1.0:
            return
        begin = max(self._paid.get(client, now), now - seconds)
        self._paid[client] = begin + seconds / self._share
        if len(self._paid) > TIDY:
            self._paid = {one: paid for one, paid in self._paid.items() if paid > now}

    def owes(self, client: Hashable, now: float) -> bool:
        """Return whether a client's prompts have taken more than their share and BURST_S."""
        return self._paid.get(client, now) - now > BURST_S / self._share
