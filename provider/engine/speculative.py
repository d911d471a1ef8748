"""Runs that are decoded one at a time: with a draft model, or with quantised KV caches.

A small draft model proposes the next tokens. The model reads them in one forward pass, and accepts
those that it samples itself (Leviathan et al., 2023, with the model's own draw as the test). So the
text is that of the model alone.
Rule 1: only the MLX thread calls this.
Rule 2: tokens are proposed only where masks are known to be cheap. Any other mask is made as for
the rows of a batch, by a MaskMaker; where it is late, the row waits for it, the thread does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from provider.caches.kinds import can_be_drafted_over, can_be_quantised
from provider.caches.single import SingleRowCaches
from provider.constraints.mask_maker import MaskJob, MaskMaker
from provider.constraints.masks import Masks
from provider.engine.logprobs import note_all
from provider.engine.model import Model, PromptEmbeddings
from provider.engine.rows import Keep, Row, StepResult, Token, finish_of
from provider.engine.sampling import Late, draw
from provider.runtime.mlx import fusing, mx
from provider.runtime.mlx_lm import make_prompt_cache, maybe_quantize_kv_cache

__all__ = ["ModelWithDraft", "SingleRowSettings", "SpeculativeCaches", "SpeculativeGroup"]


@dataclass(frozen=True)
class SingleRowSettings:
    """Settings of a draft model and of quantisation, with which runs are decoded one at a time."""

    draft: Any = None  # draft model, None without one
    draft_tokens: int = 3  # tokens proposed a step
    kv_bits: int | None = None
    kv_group_size: int = 64
    quantized_kv_start: int = 0  # tokens before a cache is quantised

    @property
    def needed(self) -> bool:
        """Whether there is a draft model or quantisation."""
        return self.draft is not None or self.kv_bits is not None

    def why_not(self, model: Any) -> str | None:
        """Return the reason why a model can't run with these settings, None if it can."""
        models = [model] if self.draft is None else [model, self.draft]
        caches = [cache for one in models for cache in make_prompt_cache(one)]
        whose = "its KV caches, or the draft's, are of a kind that cannot"
        if self.draft is not None and not can_be_drafted_over(caches):
            return f"{whose} be cut back, as drafting needs"
        if self.kv_bits is not None and not can_be_quantised(caches):
            return f"{whose} be quantised"
        return None


class ModelWithDraft:
    """A model and its draft as one model: both read each prompt, and each has its caches."""

    def __init__(self, model: Model, draft: Any):
        self.model = model
        self.draft = draft
        self.layers_of_model = len(model.make_cache())

    def make_cache(self) -> list[Any]:
        """Return new caches for both models, the draft's last."""
        return [*self.model.make_cache(), *make_prompt_cache(self.draft)]

    def __call__(self, tokens: Any, cache: Any = None, **extras: Any) -> Any:
        """Map tokens `(1, n)` to the model's logits `(1, n, vocabulary)`; the draft reads them too.

        `extras` go to the model; the draft reads placeholder tokens where the model has images.
        """
        with fusing():
            self.draft(tokens, cache=cache[self.layers_of_model :])
        return self.model(tokens, cache=cache[: self.layers_of_model], **extras)

    def warm_up(self) -> None:
        """Warm up the model."""
        self.model.warm_up()

    def embed(self, images: Any) -> PromptEmbeddings:
        """Return the model's embeddings of a prompt with processed images."""
        return self.model.embed(images)

    def chunk_extras(
        self, rows: Sequence[Row], counts: Sequence[int], tokens: Sequence[Sequence[int]]
    ) -> dict[str, Any]:
        """Return the extra arguments for the model, not for its draft."""
        return self.model.chunk_extras(rows, counts, tokens)

    def step_extras(self, rows: Sequence[Row | None]) -> dict[str, Any]:
        """Return the extra arguments for the model, not for its draft."""
        return self.model.step_extras(rows)

    def draft_extras(self, row: Row, count: int) -> dict[str, Any]:
        """Return the extra arguments for the model, not for its draft."""
        return self.model.draft_extras(row, count)

    def failed(self, error: Exception) -> None:
        """Tell the model of it."""
        self.model.failed(error)


class SpeculativeCaches(SingleRowCaches):
    """One row's caches, quantised after a forward pass if the settings say so."""

    def __init__(self, layers: list[Any], single_row: SingleRowSettings):
        super().__init__(layers)
        self._single_row = single_row

    def end(self) -> None:
        """Quantise the caches if they are long enough."""
        single_row = self._single_row
        maybe_quantize_kv_cache(
            self.layers, single_row.quantized_kv_start, single_row.kv_group_size, single_row.kv_bits
        )


class SpeculativeGroup:
    """One row that decodes several tokens a step; it has the interface of a `Group`."""

    # No forward pass is launched ahead, because the next one depends on the accepted tokens.
    first_token_pending = False

    def __init__(
        self,
        models: ModelWithDraft,
        single_row: SingleRowSettings,
        ends: frozenset[int],
        row: Row,
        caches: SpeculativeCaches,
        keep: Keep | None,
        masks: MaskMaker,
    ):
        self._models = models
        self._most = single_row.draft_tokens
        self._ends = ends
        self._row = row
        if row.constraint is not None:
            row.constraint.drafted = True
        self._caches = caches
        self._keep = keep
        self._masks = masks
        # What the row waits with for its mask; the draft has not read its last token then.
        self._late: Late | None = None
        # The masks of a step, by the number of proposed tokens before: the draft's are the model's.
        self._made: dict[int, Masks] = {}

    @property
    def members(self) -> list[Row]:
        """The row, until it has ended."""
        return [] if self._row.gone else [self._row]

    @property
    def waits(self) -> bool:
        """Whether it can't make a step before a late mask is done."""
        return self._late is not None and not self._late.job.done

    @property
    def alive(self) -> bool:
        """Whether the row has not ended."""
        return not self._row.gone

    @property
    def suspect(self) -> bool:
        """Whether its row must run alone first, after a failed forward pass."""
        return self._row.suspect

    def leave(self, row: Row, *, keep: bool = True) -> None:
        """Offer the caches of the row for reuse, unless `keep` is false."""
        if row is not self._row:
            return
        late, self._late = self._late, None
        if late is not None:
            late.job.dropped = True
        elif keep and self._keep is not None:
            self._keep(row, lambda: self._caches.layers, row.fed)

    def extract(self, _row: Row) -> tuple[list[Any] | None, None]:
        """Return the caches, and None, because there is never an unread token.

        The caches of the two models are not even while the row waits for its mask; None then.
        """
        return (None if self._late is not None else self._caches.layers), None

    def collect(self, _result: StepResult) -> None:
        """Do nothing: no forward pass is launched ahead."""

    def step(self, result: StepResult) -> None:
        """Propose tokens, verify them, and take those that the model itself has drawn."""
        row = self._row
        if row.gone or self.waits:
            return
        if self._late is not None:
            proposed, drawn = [], self._drawn_late()
        else:
            self._made.clear()
            proposed = self._draft(min(self._most, row.max_tokens - row.generated - 1))
            drawn = self._verify(proposed)
        if not drawn:
            return
        right = 0
        while right < min(len(proposed), len(drawn)) and proposed[right] == drawn[right]:
            right += 1
        tokens = self._append(drawn[: right + 1])
        self._settle(proposed, len(tokens))
        result.tokens += tokens
        if tokens[-1].finish:
            row.gone = True
            self.leave(row)

    @property
    def _has_grammar(self) -> bool:
        """Whether what may come next depends on the tokens before, by a grammar."""
        constraint = self._row.constraint
        return constraint is not None and not constraint.simple

    @property
    def _masks_are_cheap(self) -> bool:
        """Whether the masks of the row take hardly any time, as far as is known."""
        constraint = self._row.constraint
        return constraint is None or constraint.simple or constraint.shared.trusted

    def _draft(self, count: int) -> list[int]:
        """Return up to `count` tokens that the draft proposes, and has read but for the last.

        A grammar's mask needs the tokens before it, so each is waited for; else none is.
        """
        caches = self._caches.layers[self._models.layers_of_model :]
        token = mx.array([self._row.sequence[-1]], mx.uint32)
        found: list[Any] = []
        before: list[int] = []  # those found, as far as masks depend on them
        while len(found) < count and self._masks_are_cheap:
            if found and self._has_grammar:
                before += _numbers([token])
            with fusing():
                logits = self._models.draft(token[:, None], cache=caches)[:, -1, :]
            chosen = self._choose(logits, before)
            if isinstance(chosen, Late):  # another thread makes a mask of the same grammar
                chosen.job.dropped = True
                for layer in caches:
                    layer.trim(1)
                break
            token = chosen
            found.append(token)
        self._seek(self._row.generated)  # the model's draws are the same ones
        return _numbers(found)

    def _verify(self, proposed: Sequence[int]) -> list[int]:
        """Return the tokens that the model draws after the last token and each proposed one.

        Where a mask is late or costly, these are fewer; if the first is late, none, and the row
        waits.
        """
        caches = self._caches.layers[: self._models.layers_of_model]
        fed = [self._row.sequence[-1], *proposed]
        model = self._models.model
        extras = model.draft_extras(self._row, len(fed))
        logits = model(mx.array([fed]), cache=caches, **extras)
        drawn: list[Any] = []
        for n in range(len(fed)):
            if n and n not in self._made and not self._masks_are_cheap:
                break  # the step has waited long enough
            chosen = self._choose(logits[:, n, :], proposed[:n])
            if isinstance(chosen, Late):
                if n:
                    chosen.job.dropped = True
                else:  # nothing was proposed, since that needs this mask too
                    mx.eval(chosen.logits)
                    self._late = chosen
                break
            drawn.append(chosen)
        return _numbers(drawn)

    def _drawn_late(self) -> list[int]:
        """Draw the token of a row whose mask is done now."""
        assert self._late is not None
        late, self._late = self._late, None
        if late.job.error is not None:
            raise late.job.error
        masks = Masks(*late.logits.shape)
        masks.row(0)[:] = late.job.mask
        return _numbers([self._draw(masks.apply(late.logits), 0)])

    def _choose(self, logits: Any, proposed: Sequence[int]) -> Any:
        """Draw a token from logits `(1, vocabulary)`, or return what waits for its mask.

        Raises what a processor or sampler raises.
        """
        row = self._row
        for processor in row.processors:
            logits = processor(mx.array([*row.sequence, *proposed]), logits)
        if row.constraint is not None:
            masks = self._made.get(len(proposed)) or self._masked(logits, proposed)
            if isinstance(masks, Late):
                return masks
            logits = masks.apply(logits)
        return self._draw(logits, len(proposed))

    def _masked(self, logits: Any, proposed: Sequence[int]) -> Masks | Late:
        """Make the mask of the token after the answer and `proposed`; raises what that raises."""
        row = self._row
        assert row.constraint is not None
        answer = [*row.sequence[row.prompt_tokens :], *proposed]
        so_far = (len(answer), answer[-1] if answer else 0, lambda: answer)
        masks = Masks(*logits.shape)
        job = MaskJob(row.constraint, so_far, masks.row(0), row.client)
        mx.async_eval(logits)  # type: ignore[no-untyped-call] # runs while the mask is made
        self._masks.make([job])
        if not job.done:
            return Late(job, logits)
        # A token that violated the constraint is not accepted, nor are those after it.
        if job.error is not None and not (proposed and row.constraint.violated):
            raise job.error
        self._made[len(proposed)] = masks
        return masks

    def _draw(self, logits: Any, proposed: int) -> Any:
        row = self._row
        drawn = draw(logits, row.sampler)
        if row.recorder is not None:
            note_all(logits, drawn, [(row.recorder, row.generated + proposed, 0)])
        return drawn

    def _append(self, drawn: Sequence[int]) -> list[Token]:
        row, tokens = self._row, []
        row.suspect = False
        for token in drawn:
            row.sequence.append(token)
            tokens.append(row.given(token, finish_of(row, token, self._ends)))
            if tokens[-1].finish:
                break
        return tokens

    def _settle(self, proposed: Sequence[int], taken: int) -> None:
        """Trim the caches to all taken tokens but the last, which the next step feeds."""
        border = self._models.layers_of_model
        too_many = len(proposed) + 1 - taken
        for cache in self._caches.layers[:border]:
            cache.trim(too_many)
        if too_many:
            for cache in self._caches.layers[border:]:
                cache.trim(too_many - 1)
        else:  # all were accepted, and the draft has not read the last token that it proposed
            last = mx.array([[self._row.sequence[-2]]])
            with fusing():
                self._models.draft(last, cache=self._caches.layers[border:])
        self._caches.end()
        self._row.fed += taken
        self._row.drawn = self._row.generated
        self._seek(self._row.generated)

    def _seek(self, drawn: int) -> None:
        if hasattr(self._row.sampler, "seek"):
            self._row.sampler.seek(drawn)


def _numbers(tokens: Sequence[Any]) -> list[int]:
    return list(mx.concatenate(list(tokens)).tolist()) if tokens else []  # type: ignore[arg-type]
