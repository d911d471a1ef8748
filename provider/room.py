"""The memory of one model's KV caches: promised before a run begins, made free for the next.

Rule: only the MLX thread calls it, but for `refuse_if_too_large`.
"""

from __future__ import annotations

from provider.backend import active_memory, usable_memory
from provider.caches import cost_of, size_of
from provider.interface import MemoryExceededError
from provider.memory import MemoryBudget
from provider.prefix_cache import PrefixCache
from provider.rows import Keep, Row
from provider.run import Run
from provider.runs import RunRequest

__all__ = ["Room"]

USABLE = 0.9  # of the memory; the rest is for what a step needs


class Room:
    """What runs in the batch may come to need, beside what is kept for prompts to come.

    `limit` is in bytes, of all that mlx holds; None is a share of the machine's. What the model
    takes already, when this is made, is no part of it.
    """

    def __init__(self, limit: int | None, prefixes: PrefixCache, keep: Keep):
        usable = int(usable_memory() * USABLE) if limit is None else limit
        self.budget: MemoryBudget[int] = MemoryBudget(max(0, usable - active_memory()))
        self._prefixes = prefixes
        self._keep = keep

    @property
    def committed(self) -> int:
        """How many bytes are promised."""
        return self.budget.committed

    def learn(self, row: Row) -> None:
        """Take what the caches of a row cost as what every run's will."""
        self.budget.learn(*cost_of(row.caches or [], row.done))

    def refuse_if_too_large(self, request: RunRequest) -> None:
        """Raise MemoryExceededError if a run could never fit; from any thread."""
        need, limit = self.budget.need(request.most_tokens), self.budget.limit
        if need > limit:
            raise MemoryExceededError(
                f"the prompt and `max_tokens` need up to {need >> 20} MiB of cache, and there are "
                f"{limit >> 20} MiB; a lower `max_tokens` needs less",
                required_memory=need,
                available_memory=limit,
            )

    def make(self, run: Run, parked: list[Run]) -> bool:
        """Promise a run the memory that it may need, if there is enough.

        What is kept for prompts to come goes first, parked runs' caches among it: such a run is
        read again from its tokens.
        """
        need, prefixes = self.budget.need(run.request.most_tokens), self._prefixes
        while True:
            held = sum(size_of(one.parked.row.caches or []) for one in parked if one.parked)
            lacking = self.budget.lacking(need, held + prefixes.nbytes)
            if not lacking:
                self.budget.commit(run.key, need)
                return True
            if parked:
                self._give_up_caches(parked.pop(0))
            elif prefixes.nbytes:
                prefixes.shrink(max(0, prefixes.nbytes - lacking))
            else:
                return False

    def release(self, key: int) -> None:
        """Take the promise to a run back, if there is one."""
        self.budget.release(key)

    def _give_up_caches(self, run: Run) -> None:
        assert run.parked is not None
        row = run.parked.row
        if row.caches is not None:
            self._keep(row, row.caches, row.done)
            row.caches, row.done = None, 0
