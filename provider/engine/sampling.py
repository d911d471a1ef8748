"""Choosing the next token: shared samplers, seeded samplers, penalties, constraints.

Runs with the same parameters and no seed share one sampler object, so that their rows are sampled
in one call. A seeded run has a random key of its own, so that it draws the same tokens alone and in
any batch. Only the MLX thread uses this module.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol, cast

from provider.constraints.answer import AnswerConstraint
from provider.constraints.mask_maker import MaskJob, MaskMaker
from provider.constraints.masks import Masks
from provider.engine.logprobs import LogprobRecorder, note_all
from provider.options import GenerationOptions
from provider.runtime.mlx import mx
from provider.runtime.mlx_lm import (
    apply_min_p,
    apply_top_k,
    apply_top_p,
    greedy_sampler,
    make_logits_processors,
    make_sampler,
)

__all__ = [
    "Draws",
    "Late",
    "Processor",
    "Sampler",
    "Sampling",
    "choose",
    "choose_late",
    "draw",
    "processors_for",
    "sampler_for",
]

KEYS = 16  # draws that a seeded sampler can undo cheaply, as many as a draft proposes at most

Sampler = Callable[[mx.array], mx.array]  # log-probabilities (batch, vocabulary) -> (batch,)
Processor = Callable[[mx.array, mx.array], mx.array]  # context (n,), logits (1, vocabulary)


def sampler_for(options: GenerationOptions, vocabulary: int) -> Sampler:
    """Return the sampler of one run; temperature 0 is greedy, whatever else is set."""
    top_k = options.top_k if options.top_k < vocabulary else 0  # all tokens need no filter
    if options.temperature == 0:
        return greedy_sampler  # type: ignore[no-any-return]
    if options.seed is None:
        return _shared(options.temperature, options.top_p, options.min_p, top_k)
    return SeededSampler(options.seed, options.temperature, options.top_p, options.min_p, top_k)


@lru_cache(maxsize=256)
def _shared(temperature: float, top_p: float, min_p: float, top_k: int) -> Sampler:
    return make_sampler(temperature, top_p, min_p, top_k=top_k)  # type: ignore[no-any-return]


class SeededSampler:
    """Draws for one run with its own random key, after mlx-lm's filters in mlx-lm's order.

    It takes the largest log-probability plus Gumbel noise. mlx's own `categorical` looks a random
    number up in the cumulated probabilities. Rounding differs between batches, which shifts all of
    these sums: with 1,500 equally likely tokens, one draw in 300 gave another token in a batch than
    alone. With Gumbel noise this happens only if the two largest values are almost equal, in about
    one draw in a million.
    """

    def __init__(self, seed: int, temperature: float, top_p: float, min_p: float, top_k: int):
        self._seed = seed
        self._key = mx.random.key(seed)
        self._drawn = 0
        self._keys: deque[tuple[int, mx.array]] = deque(maxlen=KEYS)  # keys before the last draws
        self._temperature = temperature
        self._top_p = top_p
        self._min_p = min_p
        self._top_k = top_k

    def seek(self, drawn: int) -> None:
        """Return to the state after `drawn` draws, for instance because later ones were dropped."""
        if drawn == self._drawn:
            return
        known = next((key for at, key in self._keys if at == drawn), None)
        self._key = mx.random.key(self._seed) if known is None else known
        for _ in range(drawn if known is None else 0):
            self._key, _draw = mx.random.split(self._key)
        self._drawn = drawn
        self._keys.clear()

    def __call__(self, logprobs: mx.array) -> mx.array:
        """Map log-probabilities `(1, vocabulary)` to a token `(1,)`."""
        if self._top_p < 1:
            logprobs = apply_top_p(logprobs, self._top_p)
        if self._min_p > 0:
            logprobs = apply_min_p(logprobs, self._min_p, 1)
        if self._top_k > 0:
            logprobs = apply_top_k(logprobs, self._top_k)
        self._keys.append((self._drawn, self._key))
        self._key, draw = mx.random.split(self._key)
        self._drawn += 1
        noise = mx.random.gumbel(logprobs.shape, key=draw)
        return mx.argmax(logprobs * (1 / self._temperature) + noise, axis=-1)


def processors_for(options: GenerationOptions) -> list[Processor]:
    """Return the logits processors of one run; an empty list costs its batch nothing."""
    return make_logits_processors(  # type: ignore[no-any-return]
        logit_bias=dict(options.logit_bias) if options.logit_bias else None,
        repetition_penalty=options.repetition_penalty,
        presence_penalty=options.presence_penalty,
        frequency_penalty=options.frequency_penalty,
    )


class Sampling:
    """The source of a run's sampler and logits processors."""

    def sampler(self, options: GenerationOptions, vocabulary: int) -> Sampler:
        """Return the sampler of one run."""
        return sampler_for(options, vocabulary)

    def processors(self, options: GenerationOptions) -> Sequence[Processor]:
        """Return the logits processors of one run."""
        return processors_for(options)


class Draws(Protocol):
    """The attributes of a row that are needed to choose its next token."""

    @property
    def sampler(self) -> Sampler:
        """Log-probabilities `(rows, vocabulary)` in, tokens `(rows,)` out."""

    @property
    def processors(self) -> Sequence[Processor]:
        """The functions that change this row's logits, in order."""

    @property
    def recorder(self) -> LogprobRecorder | None:
        """The recorder of log-probabilities, None if they are not asked for."""

    @property
    def drawn(self) -> int:
        """How many tokens were sampled for this row before."""

    @property
    def constraint(self) -> AnswerConstraint | None:
        """The constraint on the answer."""

    @property
    def client(self) -> str | None:
        """The client of the run, None if it is not known."""

    def answer_so_far(self, last: int) -> tuple[int, int, Callable[[], Sequence[int]]]:
        """Return the answer up to `last`, which the model reads, as `AnswerConstraint.follow`."""

    @property
    def context(self) -> Any:
        """The tokens that the model has been fed, as a TokenBuffer; None without processors."""


Failures = dict[int, Exception]  # the first fault of each row


@dataclass(frozen=True)
class Late:
    """What a row that waits for its mask needs to go on: its logits are `(1, vocabulary)`."""

    job: MaskJob
    logits: mx.array


def choose(
    logits: mx.array, rows: Sequence[Draws | None], fed: mx.array, masks: MaskMaker
) -> tuple[mx.array, Failures, dict[int, Late]]:
    """Return the next tokens `(rows,)` for logits `(rows, vocabulary)`, failed rows and late ones.

    `fed` are the tokens `(rows,)` that gave the logits. A row that is None is an empty slot, and
    its token is meaningless, like that of a failed row or of one whose mask is late. Rows with the
    same sampler are sampled in one call. Errors of processors, constraints and samplers are
    returned for their rows, not raised.
    """
    failures: Failures = {}
    logits = _processed(logits, rows, fed, failures)
    logits, late = _constrained(logits, rows, fed, failures, masks)
    drawing = [None if index in late else row for index, row in enumerate(rows)] if late else rows
    chosen = _chosen(logits, drawing, failures)
    return chosen, failures, late


def choose_late(late: Late, row: Draws) -> tuple[mx.array, Failures]:
    """Return the next token `(1,)` of a row whose mask is done now, and its fault."""
    assert late.job.done
    failures: Failures = {} if late.job.error is None else {0: late.job.error}
    masks = Masks(*late.logits.shape)
    masks.row(0)[:] = late.job.mask
    return _chosen(masks.apply(late.logits), [row], failures), failures


def _chosen(logits: mx.array, rows: Sequence[Draws | None], failures: Failures) -> mx.array:
    groups: dict[Sampler, list[int]] = {}
    for index, row in enumerate(rows):
        if row is not None:
            groups.setdefault(row.sampler, []).append(index)
    chosen = _drawn(logits, groups, failures, len(rows))
    noting = [
        (row.recorder, row.drawn, index)
        for index, row in enumerate(rows)
        if row is not None and row.recorder is not None
    ]
    if noting:
        note_all(logits, chosen, noting)
    return chosen


def _drawn(
    logits: mx.array, groups: dict[Sampler, list[int]], failures: Failures, count: int
) -> mx.array:
    if len(groups) == 1:
        sampler, indices = next(iter(groups.items()))
        # A seeded draw depends on the number of rows.
        if len(indices) == count or not isinstance(sampler, SeededSampler):
            return _draw(sampler, logits, indices, failures)
    chosen = mx.zeros((count,), mx.uint32)
    if not groups:  # the masks of all rows are late
        return chosen
    order = mx.array([index for indices in groups.values() for index in indices])
    drawn = [
        _draw(sampler, logits[mx.array(indices)], indices, failures)
        for sampler, indices in groups.items()
    ]
    chosen[order] = mx.concatenate(drawn)
    return chosen


def draw(logits: mx.array, sampler: Sampler) -> mx.array:
    """Return the tokens `(rows,)` that one sampler draws; raises what it raises."""
    if sampler is greedy_sampler:
        return mx.argmax(logits, axis=-1)
    return sampler(logits - mx.logsumexp(logits, axis=-1, keepdims=True)).astype(mx.uint32)


def _draw(
    sampler: Sampler, logits: mx.array, indices: Sequence[int], failures: Failures
) -> mx.array:
    try:
        return draw(logits, sampler)
    except Exception as error:  # noqa: BLE001 - a sampler's error fails only its rows
        for index in indices:
            failures.setdefault(index, error)
        return mx.argmax(logits, axis=-1)


def _constrained(
    logits: mx.array,
    rows: Sequence[Draws | None],
    fed: mx.array,
    failures: Failures,
    maker: MaskMaker,
) -> tuple[mx.array, dict[int, Late]]:
    """Mask the tokens that the constraint of each row forbids; return the late rows too."""
    held = [
        (index, row, row.constraint)
        for index, row in enumerate(rows)
        if row is not None and row.constraint is not None
    ]
    if not held:
        return logits, {}
    mx.async_eval(logits)  # type: ignore[no-untyped-call] # runs while the masks are made
    masks, last = Masks(*logits.shape), cast(list[int], fed.tolist())
    jobs: dict[int, MaskJob] = {}
    for index, row, constraint in held:
        so_far = row.answer_so_far(last[index])
        jobs[index] = MaskJob(constraint, so_far, masks.row(index), row.client)
    maker.make(list(jobs.values()))
    late = {}
    for index, job in jobs.items():
        if not job.done:
            late[index] = Late(job, logits[index : index + 1])
        elif job.error is not None:
            failures.setdefault(index, job.error)
    return masks.apply(logits), late


def _processed(
    logits: mx.array, rows: Sequence[Draws | None], fed: mx.array, failures: Failures
) -> mx.array:
    for index, row in enumerate(rows):
        if row is None or not row.processors:
            continue
        own = logits[index : index + 1]
        context = row.context.update_and_fetch(fed[index : index + 1])
        try:
            for processor in row.processors:
                own = processor(context, own)
        except Exception as error:  # noqa: BLE001 - a processor's error fails only its row
            failures[index] = error
        else:
            logits[index : index + 1] = own
    return logits
