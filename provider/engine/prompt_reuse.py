"""Reuse of KV caches, so that the same tokens are prefilled only once.

Prefixes: a run starts from the kept caches of the longest prefix that it has in common with an
earlier sequence. Shared prompts: of several answers to one prompt, the first run (the leader)
prefills it; the others wait, then start from copies of its caches. Boundaries: places in a prompt
at which its caches are kept, because later prompts are likely to begin with the same tokens.
Rule: only the MLX thread calls it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from provider.caches.kinds import is_always_trimmable, size_of, trim
from provider.caches.prefix_cache import MIN_TOKENS, Hit, PrefixCache
from provider.caches.prefix_store import Stored
from provider.engine.rows import Row
from provider.engine.run import Run
from provider.engine.shapes import ANY_SHAPE, SMALLEST
from provider.engine.shared_prompt import SharedPrompts

__all__ = ["PromptReuse"]

Plan = list[tuple[int, int]]  # keys of runs, and how many tokens of each are read


class PromptReuse:
    """The prefix cache of one model, and the prompts that its runs share."""

    def __init__(self, prefixes: PrefixCache):
        self.prefixes = prefixes
        self.shared_prompts = SharedPrompts()
        self.shapes = ANY_SHAPE
        self._reads_images_whole = False  # whether a prompt with images can reuse no prefix

    def keep(self, row: Row, make: Callable[[], list[Any]], tokens: int) -> None:
        """Offer the prefix cache what `make` returns: caches of a row's first `tokens` tokens."""
        self.prefixes.offer(row.kind, row.sequence[:tokens], make)

    def find(self, row: Row, taken: Hit | None = None) -> Hit | None:
        """Return the kept caches of the longest prefix of a row's sequence, None if none are.

        `taken` are caches that were taken from the prefix cache for this row. Where shapes are to
        come again, the prefix is cut back to a place where a chunk may begin.
        """
        if row.prompt_embeddings is not None and row.prompt_embeddings.extras:
            self._reads_images_whole = True
            return None  # the extras need the whole prompt, so no prefix is reused
        hit = taken or self.prefixes.find(row.kind, row.sequence)
        return None if hit is None else self._cut_back(hit, len(row.sequence) - 1)

    def _cut_back(self, hit: Hit, length: int) -> Hit | None:
        start = self.shapes.start(hit.length, length)
        if not self.shapes.few or start % SMALLEST or not is_always_trimmable(hit.caches):
            return hit
        trim(hit.caches, hit.length - start)
        return Hit(hit.caches, start) if start else None

    def on_disk(self, run: Run) -> Stored | None:
        """Return the file that must be read for `begin` or `find` to return a longer prefix.

        None if there is none, or if the run needs no prefix.
        """
        request, shared = run.request, run.request.shared_prompt
        if shared is not None and shared.caches is not None and shared.leader != run.key:
            return None
        if request.images is not None and self._reads_images_whole:
            return None
        if run.parked is None:
            return self.prefixes.on_disk(request.kind, request.prompt)
        row = run.parked.row
        return None if row.caches is not None else self.prefixes.on_disk(row.kind, row.sequence)

    # Several answers to one prompt.

    def leads(self, run: Run) -> bool:
        """Return whether a run can be queued now; if not, it waits for the leader of its prompt."""
        shared = run.request.shared_prompt
        if shared is None or shared.ready:
            return True
        if shared.leader is not None:
            shared.others.add(run.key)
            return False
        shared.leader = run.key
        return True

    def begin(self, run: Run, row: Row) -> Hit | None:
        """Return the caches that a run starts with, None if its whole prompt must be prefilled."""
        taken, run.taken_prefix = run.taken_prefix, None
        return self._shared_by_leader(run) or self.find(row, taken)

    def _shared_by_leader(self, run: Run) -> Hit | None:
        shared = run.request.shared_prompt
        if shared is None or shared.leader == run.key:
            return None
        caches = shared.caches
        shared.begun(run.key)
        if caches is None:
            return None
        last = shared.caches is None
        return Hit(caches if last else copy.deepcopy(caches), shared.length)

    def release(self, run: Run, caches: list[Any] | None, done: int) -> list[int]:
        """Share a leader's caches once it has prefilled all tokens that the answers share.

        `caches` hold the first `done` tokens of the prompt. Returns the keys of the runs that can
        be queued now, in order of submission.
        """
        shared = run.request.shared_prompt
        if shared is None or shared.ready or shared.leader != run.key or done < run.shared:
            return []
        if caches is not None and done and shared.others:
            self.shared_prompts.keep(shared, copy.deepcopy(caches), done, size_of(caches))
        shared.ready = True
        return sorted(shared.others)

    def forget(self, run: Run) -> list[int]:
        """Note that a run has ended; if it was a leader, return the keys of runs waiting for it."""
        shared = run.request.shared_prompt
        if shared is None:
            return []
        shared.begun(run.key)
        if shared.leader != run.key or shared.ready:
            return []
        shared.ready = True
        return sorted(shared.others)

    # Boundaries.

    def up_to_boundary(self, plan: Plan, runs: Sequence[tuple[Run, Row]]) -> Plan:
        """Return `plan`, cut down to one prompt if one has a boundary or images ahead.

        The first such prompt is read alone, and at most up to the end of the images or to the
        boundary. `runs` are the plan's runs, in its order.
        """
        for (key, n), (run, row) in zip(plan, runs, strict=True):
            given, done = row.prompt_embeddings, row.done
            if given is not None and done < given.length:
                most = given.length - done
                return [(key, most if given.extras else min(n, most))]
            end = _boundary(run, done)
            if end is not None:
                return [(key, min(n, end - done))]
        return plan

    def in_few_shapes(self, plan: Plan, runs: Sequence[tuple[Run, Row]]) -> Plan:
        """Return `plan`, cut down to a shape that comes again. `runs` are as in `up_to_boundary`.

        A chunk is made larger if it is smaller than any shape. A prompt whose images must be read
        whole stays as it is.
        """
        if len(plan) > 1:
            return plan[: self.shapes.rows(len(plan))]
        ((key, n),) = plan
        run, row = next(one for one in runs if one[0].key == key)
        if row.prompt_embeddings is not None and row.prompt_embeddings.extras:
            return plan
        most = (_boundary(run, row.done) or row.done + row.left) - row.done
        n = max(n, min(most, SMALLEST)) if self.shapes.few else n
        return [(key, self.shapes.tokens(row.done, n, ends=n == most))]

    def keep_boundary(self, run: Run, row: Row) -> None:
        """Keep a copy of a row's caches if its prompt has been read exactly to a boundary."""
        if row.caches is not None and row.done in run.request.boundaries:
            self.keep(row, partial(copy.deepcopy, row.caches), row.done)


def _boundary(run: Run, done: int) -> int | None:
    """Return the next place in a run's prompt at which its caches are kept or shared, if any."""
    ends = [end for end in run.request.boundaries if end - done >= MIN_TOKENS]
    shared = run.request.shared_prompt
    if shared is not None and not shared.ready and done < run.shared:
        ends.append(run.shared)
    return min(ends, default=None)
