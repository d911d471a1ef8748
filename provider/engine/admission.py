"""Admits one model's runs by memory: a run begins when the most that it may need is promised to it.

Rule: only the MLX thread calls it, except for `refuse_if_too_large`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from provider.caches.kinds import cost_of, size_of
from provider.caches.prefix_cache import PrefixCache
from provider.engine.memory_budget import MemoryBudget
from provider.engine.memory_pool import RETRY_AFTER_S, MemoryPool
from provider.engine.messages import RunRequest
from provider.engine.rows import Keep, Row
from provider.engine.run import Run
from provider.engine.shared_prompt import SharedPrompt, SharedPrompts
from provider.interface import MemoryExceededError, ResourceExceededError

__all__ = ["Admission"]


class Admission:
    """One model's memory: its weights, promises to runs in the batch, and kept KV caches.

    The latter are those in `prefixes`, those of `prompts` with further answers, and parked runs'.
    `padding` returns how many positions the batch has to spare, since its rows are not equally
    long.

    A PoolMember of the memory that all models share. `weights` is in bytes.
    """

    def __init__(
        self,
        shared: MemoryPool,
        weights: int,
        prefixes: PrefixCache,
        keep: Keep,
        prompts: SharedPrompts,
        padding: Callable[[], int] = lambda: 0,
    ):
        self.weights = weights
        self.budget: MemoryBudget[int] = MemoryBudget(max(0, shared.limit - weights))
        self._shared = shared
        self._prefixes = prefixes
        self._prompts = prompts
        self._keep = keep
        self._padding = padding
        self._deadlocked_since: float | None = None  # time in seconds, None if not deadlocked
        self._parked: dict[int, Run] = {}  # the longest parked first

    @property
    def committed(self) -> int:
        """How many bytes are promised to runs in the batch."""
        return self.budget.committed

    @property
    def held(self) -> int:
        """The bytes in use: weights, promises, padding, caches of parked runs, kept caches."""
        parked = sum(map(_caches_of, self._parked.values()))
        return self.weights + self.budget.committed + self._padded + parked + self._kept

    @property
    def free(self) -> float:
        """How many tokens' KV caches memory has room for now, without anything evicted."""
        nbytes = self._shared.limit - self._shared.held_by_others(None)
        per_token = self.budget.per_token
        return math.inf if not per_token else max(0, nbytes) / per_token

    @property
    def _padded(self) -> int:
        return int(self._padding() * self.budget.per_token)

    @property
    def _kept(self) -> int:
        return self._prefixes.nbytes + self._prompts.nbytes

    @property
    def promised(self) -> int:
        """Like `committed`, by the name that PoolMember gives it."""
        return self.budget.committed

    def enter(self) -> None:
        """Add the model to those that share the memory."""
        self._shared.enter(self)

    def forget(
        self, nbytes: int, spared: int | None = None, prompt: SharedPrompt | None = None
    ) -> int:
        """Evict about `nbytes` of kept KV caches; return how many were freed.

        Those kept for later prompts go before those kept for further answers to a prompt. The entry
        of the prefix cache with the number `spared` stays, and so do the caches of `prompt`.
        """
        before = self._kept
        self._prefixes.shrink(max(0, self._prefixes.nbytes - nbytes), spared)
        lacking = nbytes - (before - self._kept)
        if lacking > 0:
            self._prompts.shrink(max(0, self._prompts.nbytes - lacking), prompt)
        return before - self._kept

    def leave(self) -> None:
        """Remove the model from those that share the memory."""
        if self.awaited is not None:
            self._shared.turn.end((self, self.awaited))
        self._shared.leave(self)

    def learn(self, row: Row) -> None:
        """Estimate the cost of every run from the caches of this row."""
        self.budget.learn(*cost_of(row.caches or [], row.done))

    def refuse_if_too_large(self, request: RunRequest) -> None:
        """Raise MemoryExceededError if a run could never fit; from any thread."""
        need, limit = self._need(request), self.budget.limit
        if need > limit:
            raise MemoryExceededError(
                f"the prompt and `max_tokens` need up to {need >> 20} MiB of KV cache, and the "
                f"limit is {limit >> 20} MiB; lower `max_tokens`",
                required_memory=need,
                available_memory=limit,
            )

    @property
    def awaited(self) -> int | None:
        """The run of this model that others leave memory to, None if there is none."""
        match self._shared.turn.awaited:
            case (member, int(key)) if member is self:
                return key
        return None

    def make(self, run: Run) -> bool:
        """Promise a run the most memory that it may need; return False if it must wait for that.

        It waits while there is not enough, or what is free is reserved for a run that has waited
        longer. As long as only the ends of runs can make enough free, nothing is freed for it. Else
        memory is freed in this order: caches of parked runs, which will be prefilled again; this
        model's kept caches; other models' kept caches; other models that are idle. The prefix that
        was read from disk for the run is not evicted: it counts as part of what the run needs, and
        where that is necessary, the run takes it from the prefix cache. Caches that are kept for
        this further answer to a prompt alone are a part of what it needs too.
        """
        need = self._need(run.request)
        turn, name = self._shared.turn, (self, run.key)
        if not turn.allows(name, need, self._shared.room):
            return False
        if self.budget.lacking(need, self._shared.promised - self.committed):
            turn.wait(name, need, run.client)
            return False
        parked = [one for one in self._parked.values() if one.key != run.key]
        evictable = [one for one in parked if one.key != self.awaited]
        own = self._prefixes.entry_bytes(run.read_prefix)
        if not own or own > need:
            run.read_prefix, own = None, 0
        prompt = run.request.shared_prompt
        begun_with = 0 if prompt is None else prompt.left_to(run.key)
        while True:
            held = sum(map(_caches_of, parked))
            others = self._shared.held_by_others(self) + self._padded
            lacking = self.budget.lacking(need, held + self._kept - begun_with + others)
            if 0 < lacking <= own:
                self._take_prefix(run)
                lacking = 0
            if not lacking:
                run.read_prefix = None
                self._deadlocked_since = None
                self._parked.pop(run.key, None)  # what it keeps is a part of its promise now
                self.budget.commit(run.key, need)
                turn.begin(name, need)
                self._shared.share.hold(name, run.client, need)
                return True
            if evictable:
                self._evict_caches(evictable.pop(0))
            elif not (
                self.forget(lacking - own, run.read_prefix, prompt if begun_with else None)
                or self._shared.make_room(lacking - own, self)
            ):
                turn.wait(name, need, run.client)
                return False

    @property
    def deadlocked(self) -> bool:
        """Whether waiting can't free memory, because no run of any model is in a batch."""
        return not self._shared.promised

    def refuse_if_deadlocked(self, now: float) -> None:
        """Raise ResourceExceededError once `deadlocked` has been true for RETRY_AFTER_S seconds.

        Pinned models and models with waiting runs keep their weights. If every model's runs wait
        for memory, none would ever begin. `now` is in seconds.
        """
        if not self.deadlocked:
            self._deadlocked_since = None
            return
        self._deadlocked_since = now if self._deadlocked_since is None else self._deadlocked_since
        if now - self._deadlocked_since >= RETRY_AFTER_S:
            self._deadlocked_since = None
            raise ResourceExceededError(
                "the prompt and `max_tokens` do not fit beside the models that are in use; try "
                "again later, or with a lower `max_tokens`",
                details={"retry_after": RETRY_AFTER_S},
            )

    def park(self, run: Run) -> None:
        """Withdraw the promise to a run that is parked, and count the caches that it keeps."""
        self.release(run.key)
        self._parked[run.key] = run

    def release(self, key: int) -> None:
        """Withdraw the promise to a run, if it has one, and count nothing of it any more."""
        self._parked.pop(key, None)
        self.budget.release(key)
        self._shared.turn.end((self, key))
        self._shared.share.release((self, key))

    def decode(self, key: int) -> None:
        """Note that the prompt of a run in the batch is read."""
        self._shared.share.decode((self, key))

    def yielding(self, turn_s: float) -> int | None:
        """Return the run that must leave the batch for one that waits for memory, None for none.

        None of this model need leave before a run has waited for `turn_s` seconds.
        """
        turn = self._shared.turn
        if turn.awaited is None or turn.waited < turn_s:
            return None
        match self._shared.share.yielding(turn.client, self._shared.room, turn_s):
            case (member, int(key)) if member is self:
                turn.reserve()
                return key
        return None

    def _need(self, request: RunRequest) -> int:
        """Return the most bytes that a run takes: its KV cache and its constraint."""
        return self.budget.need(request.max_total_tokens) + request.constraint_bytes

    def _take_prefix(self, run: Run) -> None:
        assert run.read_prefix is not None
        tokens = run.request.prompt if run.parked is None else run.parked.row.sequence
        run.taken_prefix = self._prefixes.take(run.read_prefix, tokens)

    def _evict_caches(self, run: Run) -> None:
        assert run.parked is not None
        caches, done = run.parked.evict_caches()
        if caches is not None:
            self._keep(run.parked.row, lambda: caches, done)


def _caches_of(run: Run) -> int:
    """Return the size in bytes of the caches that a run keeps while it is parked."""
    return 0 if run.parked is None else size_of(run.parked.row.caches or [])
