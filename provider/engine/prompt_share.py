"""How much of the engine's time the prompts of one client may take while others' runs decode.

A chunk beside streams is bounded, so that no gap is long. But a client that sends prompt after
prompt makes every step a chunk and a step, and others' answers several times as slow. A few long
prompts are usual, and read at once; who goes on to send them has a share. The more clients decode,
the more of them would wait for it, and the smaller it is.

Pure policy: no clock, no library. Times are in seconds, by the worker's clock.
"""

from __future__ import annotations

from collections.abc import Hashable

__all__ = ["BURST_S", "PromptShare"]

# What a client's prompts may take before its share is all that they have: about what a large model
# on a small machine takes for a prompt of 8,000 tokens.
BURST_S = 15.0
# Part of the share that is left beside many clients; less would leave a long prompt unread for
# minutes where each of the others has but a short answer.
LEAST = 0.5
TIDY = 256  # clients that are remembered, after which those that owe nothing are forgotten


class PromptShare:
    """Counts the time of chunks by client. With a share of 1 nothing is counted.

    `share` is the part of the time that prompts may take beside the runs of one other client. It
    is divided among the clients there are, so a half becomes a third beside two others and a
    quarter beside three; beside more of them it is LEAST of `share`.
    """

    def __init__(self, share: float):
        self._share = share
        self._taken: dict[Hashable, tuple[float, float]] = {}  # seconds not made up for, and when

    def took(self, client: Hashable, seconds: float, now: float, others: int) -> None:
        """Record that a client's prompts took so long, until now, beside so many other clients."""
        if self._share >= 1.0:
            return
        self._taken[client] = self._debt(client, now, others) + seconds, now
        if len(self._taken) > TIDY:
            self._taken = {one: self._taken[one] for one in self._taken if self._debt(one, now, 1)}

    def owes(self, client: Hashable, now: float, others: int) -> bool:
        """Return whether a client's prompts have taken more than their share and BURST_S."""
        return self._debt(client, now, others) > BURST_S

    def _debt(self, client: Hashable, now: float, others: int) -> float:
        taken, at = self._taken.get(client, (0.0, now))
        return max(0.0, taken - self._beside(others) * (now - at))

    def _beside(self, others: int) -> float:
        return self._share * max(2.0 / (1 + others), LEAST)
