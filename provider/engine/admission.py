"""The memory of one model's KV caches: promised before a run begins, made free for the next.

Rule: only the MLX thread calls it, but for `refuse_if_too_large`.
"""

from __future__ import annotations

from provider.caches.kinds import cost_of, size_of
from provider.caches.prefix_cache import PrefixCache
from provider.engine.memory_budget import MemoryBudget
from provider.engine.memory_pool import RETRY_AFTER_S, MemoryPool
from provider.engine.messages import RunRequest
from provider.engine.rows import Keep, Row
from provider.engine.run import Run
from provider.interface import MemoryExceededError, ResourceExceededError

__all__ = ["Admission"]


class Admission:
    """The memory promised to runs in the batch, beside the caches kept for later prompts.

    A tenant of the memory that all models share; `weights` in bytes.
    """

    def __init__(self, shared: MemoryPool, weights: int, prefixes: PrefixCache, keep: Keep):
        self.weights = weights
        self.budget: MemoryBudget[int] = MemoryBudget(max(0, shared.limit - weights))
        self._shared = shared
        self._prefixes = prefixes
        self._keep = keep
        self._stuck_since: float | None = None  # time in seconds, None if the queue moves
        self._parked_bytes = 0  # bytes of parked caches at the last look

    @property
    def committed(self) -> int:
        """How many bytes are promised."""
        return self.budget.committed

    @property
    def held(self) -> int:
        """How many bytes count as taken: weights, promises, and what parked runs hold."""
        return self.weights + self.budget.committed + self._parked_bytes + self._prefixes.nbytes

    @property
    def promised(self) -> int:
        """How many bytes are promised to runs."""
        return self.budget.committed

    def enter(self) -> None:
        """Join the models that share the memory."""
        self._shared.enter(self)

    def forget(self, nbytes: int) -> int:
        """Free about so many bytes of caches kept for later prompts; return how many were freed."""
        before = self._prefixes.nbytes
        self._prefixes.shrink(max(0, before - nbytes))
        return before - self._prefixes.nbytes

    def leave(self) -> None:
        """Leave the models that share the memory."""
        self._shared.leave(self)

    def learn(self, row: Row) -> None:
        """Estimate the cost of every run from the caches of this row."""
        self.budget.learn(*cost_of(row.caches or [], row.done))

    def refuse_if_too_large(self, request: RunRequest) -> None:
        """Raise MemoryExceededError if a run could never fit; from any thread."""
        need, limit = self.budget.need(request.most_tokens), self.budget.limit
        if need > limit:
            raise MemoryExceededError(
                f"the prompt and `max_tokens` need up to {need >> 20} MiB of KV cache, and the "
                f"limit is {limit >> 20} MiB; lower `max_tokens`",
                required_memory=need,
                available_memory=limit,
            )

    def make(self, run: Run, parked: list[Run]) -> bool:
        """Promise a run the memory that it may need, if there is enough.

        What is kept for prompts to come goes first, parked runs' caches among it: such a run is
        read again from its tokens. Then what other models keep, and other models that are idle.
        """
        need = self.budget.need(run.request.most_tokens)
        while True:
            held = sum(size_of(one.parked.row.caches or []) for one in parked if one.parked)
            others = self._shared.held_by_others(self)
            lacking = self.budget.lacking(need, held + self._prefixes.nbytes + others)
            if not lacking:
                self._parked_bytes, self._stuck_since = held, None
                self.budget.commit(run.key, need)
                return True
            if parked:
                self._give_up_caches(parked.pop(0))
            elif not self.forget(lacking) and not self._shared.make_room(lacking, self):
                return False

    @property
    def stuck(self) -> bool:
        """Whether no run will end and free memory for the run that `make` refused."""
        return not self._shared.promised

    def refuse_if_stuck(self, now: float) -> None:
        """Raise ResourceExceededError if no run will free memory for the run that `make` refused.

        Models that are pinned or have runs of their own keep their weights. Where all of these
        wait too, none would ever go on; a while is left for one that is only just used.
        """
        if not self.stuck:
            self._stuck_since = None
            return
        self._stuck_since = now if self._stuck_since is None else self._stuck_since
        if now - self._stuck_since >= RETRY_AFTER_S:
            self._stuck_since = None
            raise ResourceExceededError(
                "the prompt and `max_tokens` do not fit beside the models that are in use; try "
                "again later, or with a lower `max_tokens`",
                details={"retry_after": RETRY_AFTER_S},
            )

    def release(self, key: int) -> None:
        """Withdraw the promise to a run, if there is one."""
        self.budget.release(key)

    def _give_up_caches(self, run: Run) -> None:
        assert run.parked is not None
        caches, done = run.parked.give_up_caches()
        if caches is not None:
            self._keep(run.parked.row, lambda: caches, done)
