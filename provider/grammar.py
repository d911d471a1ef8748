"""Answers held to a form: JSON that fits a schema, a regular expression, a grammar, choices.

llguidance says which tokens may come next, and sampling leaves only those. What is allowed follows
from the token before, so that has to be read first; the forward pass runs meanwhile.

Rule 1: a form that can't be compiled is an error before anything runs, with the reason.
Rule 2: thinking comes first and is not bound. The form begins where it ends.
Rule 3: what is asked again, after a pass that failed or a proposed token that was thrown away, is
found by the tokens themselves, not by counting calls.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLTokenizer
from llguidance.hf import from_tokenizer

from provider.backend import mx
from provider.call_grammar import call_lark
from provider.interface import GenerationError, InvalidParameterError
from provider.lark import BETWEEN
from provider.thinking import Thinking

__all__ = ["Forms", "Held", "Masks", "refuse_excess"]

OPTION = "response_format"
MOST_KEPT = 64  # compiled forms, each of up to some megabytes


@dataclass(frozen=True)
class Form:
    """What an answer is held to: `grammar` in llguidance's own notation."""

    grammar: str


def form_of(response_format: Mapping[str, Any]) -> Form | None:
    """Return the form that is asked for, None for plain text. Raises InvalidParameterError."""
    kind, given = response_format["type"], response_format
    try:
        match kind:
            case "text":
                return None
            case "json_object":
                return _json({"type": "object"})
            case "json_schema":
                return _json(given["schema"])
            case "regex":
                return Form(LLMatcher.grammar_from_regex(given["regex"]))
            case "lark":
                return Form(LLMatcher.grammar_from_lark(given["grammar"]))
            case _:
                choices = "|".join(re.escape(choice) for choice in given["choices"])
                return Form(LLMatcher.grammar_from_regex(choices))
    except (ValueError, TypeError, RecursionError) as error:  # also what is no JSON
        raise _refused(response_format, str(error)) from error


def refuse_excess(
    passes: Callable[[str], bool],
    response_format: Mapping[str, Any] | None,
    tools: Sequence[Mapping[str, Any]],
) -> None:
    """Raise InvalidParameterError if a form, or a tool's arguments, take too much to compile.

    `passes` tries a grammar. That of a call is made of those of its arguments.
    """
    form = form_of(response_format) if response_format else None
    tried = [] if form is None else [(form, OPTION, response_format)]
    for tool in tools:
        schema = tool["function"]["parameters"]
        tried.append((_json(schema), "tools", schema))
    for one, option, value in tried:
        if not passes(one.grammar):
            raise _refused(value, "it takes too much time or memory to compile", option)


def _json(schema: Mapping[str, Any] | bool) -> Form:
    overrides: Any = {"whitespace_pattern": BETWEEN}
    return Form(LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=overrides))


class Forms:
    """Compiles forms for one tokenizer; for the thread that prepares prompts."""

    def __init__(self, tokenizer: Any, vocabulary: int):
        self._wrapped = tokenizer
        self._vocabulary = vocabulary
        self._tokenizer: LLTokenizer | None = None  # a second of work: made when it is needed
        self._kept: dict[Form, LLMatcher] = {}  # those used last at the end

    def matcher(self, response_format: Mapping[str, Any]) -> LLMatcher | None:
        """Return a matcher of one's own, None for plain text. Raises InvalidParameterError."""
        form = form_of(response_format)
        if form is None:
            return None
        return self._copy(form, OPTION, response_format)

    def call_matcher(self, tools: Sequence[Mapping[str, Any]]) -> LLMatcher:
        """Return a matcher for one call of one of these tools, as the model writes calls.

        Raises InvalidParameterError if the schema of a tool's arguments can't be compiled,
        UnsupportedFeatureError if the model has no way to write such a call.
        """
        grammar = call_lark(self._wrapped, tools)
        return self._copy(Form(LLMatcher.grammar_from_lark(grammar)), "tools", tools)

    def _copy(self, form: Form, option: str, value: Any) -> LLMatcher:
        kept = self._kept.pop(form, None)
        copy = None if kept is None else _sound_copy(kept)
        if kept is None or copy is None:
            kept = self._compile(form)
            if kept.is_error():
                raise _refused(value, _reason(kept), option)
            copy = kept.deep_copy()
        self._kept[form] = kept
        if len(self._kept) > MOST_KEPT:
            del self._kept[next(iter(self._kept))]
        return copy

    def _compile(self, form: Form) -> LLMatcher:
        if self._tokenizer is None:
            self._tokenizer = from_tokenizer(
                self._wrapped._tokenizer,  # noqa: SLF001 - mlx-lm has no other way to it
                n_vocab=self._vocabulary,
                eos_token=sorted(self._wrapped.eos_token_ids),
            )
        matcher = LLMatcher(self._tokenizer, form.grammar, log_level=0)
        if not matcher.is_error():
            matcher.compute_bitmask()  # a form that no token can begin is known by that
        return matcher


class Held:
    """What holds one run's answer to its form, and its thinking to its budget; on the MLX thread.

    While the model thinks nothing is bound, until `most_thoughts` tokens have come, of all its
    thinking together; then the only way on is what closes it, token by token, and no more is begun.
    Without a `matcher` thinking may come anywhere in the answer, with one before its form. The
    tokens of `never` come nowhere in that order.
    """

    def __init__(
        self,
        matcher: LLMatcher | None,
        ends: Iterable[int],
        thinking: Thinking,
        *,
        begun: bool = False,
        most_thoughts: int | None = None,
        never: Sequence[int] = (),
    ):
        self._matcher = matcher
        self._ends = list(ends)  # may come where the form is full
        self._thinking = thinking
        self._begun = begun  # whether the prompt opens the thinking
        self._think_start = list(thinking.start)  # may come first where it may think unasked
        self._think_end = list(thinking.end)
        self._closing = list(thinking.closing)
        self._most_thoughts = most_thoughts
        self._never = list(never)
        self._restart()

    def another(self) -> Held:
        """Return one that holds another run to the same."""
        return Held(
            None if self._matcher is None else self._matcher.deep_copy(),
            self._ends,
            self._thinking,
            begun=self._begun,
            most_thoughts=self._most_thoughts,
            never=self._never,
        )

    @property
    def bound(self) -> bool:
        """Whether anything is forbidden after the tokens that were followed last."""
        return self._due is not None or self._formed or bool(self._forbidden)

    def follow(self, length: int, last: int, answer: Callable[[], Sequence[int]]) -> None:
        """Take the answer's tokens so far: `length` of them, the newest `last`.

        `answer` returns all of them; it is asked only if they are not those of before and one more.
        """
        if length == len(self._seen) + 1:
            self._take(last)
        elif length > 0 or self._seen:
            tokens = list(answer()) if length > 0 else []
            if tokens != self._seen:
                self._restart()
                for token in tokens:
                    self._take(token)

    def write(self, mask: Any) -> None:
        """Set the bits of the tokens that may come next in `mask`, 32 tokens a number."""
        due = self._due
        if due is not None:
            _only(mask, [due])
            return
        if self._formed:
            self._write_form(mask)
        for token in self._forbidden:
            mask[token // 32] &= ~np.uint32(1 << (token % 32))

    def _write_form(self, mask: Any) -> None:
        assert self._matcher is not None
        if self._matcher.is_stopped():  # the form is full
            _only(mask, self._ends)
        else:
            self._matcher.unsafe_compute_mask_ptr(mask.ctypes.data, mask.nbytes)
            if self._matcher.is_error():
                raise GenerationError(f"the answer's form is too complex: {_reason(self._matcher)}")
        if not self._seen:
            _set(mask, *self._think_start[:1])

    @property
    def _formed(self) -> bool:
        """Whether the next token is of the form."""
        return self._matcher is not None and self._thoughts is None and not self._off

    @property
    def _due(self) -> int | None:
        """The token that has to come next to close the thinking, None if it may go on."""
        most, closing = self._most_thoughts, self._closing
        if self._thoughts is None or most is None or self._thoughts < most or not closing:
            return None
        # As much of it as is there already is not asked for again.
        there = (n for n in range(len(closing) - 1, 0, -1) if self._ends_with(closing[:n]))
        return closing[next(there, 0)]

    @property
    def _forbidden(self) -> list[int]:
        """The tokens that would make whole what may not come."""
        most = self._most_thoughts
        spent = most is not None and self._thoughts is None and self._spent >= most
        refused = [self._never, self._think_start if spent else []]
        found = [one[-1] for one in refused if one and self._ends_with(one[:-1])]
        # An answer that has to have a form can't end before it has begun.
        early = self._matcher is not None and self._thoughts is not None
        return found + self._ends if early else found

    def _ends_with(self, tokens: list[int]) -> bool:
        last = self._seen[-len(tokens) :] if tokens else []
        if len(last) < len(tokens):
            last = [*self._thinking.before, *last][-len(tokens) :]
        return last == tokens

    def _restart(self) -> None:
        if self._matcher is not None:
            self._matcher.reset()
        self._seen: list[int] = []  # of the answer's tokens, all that were taken
        self._thoughts: int | None = 0 if self._begun else None  # None: it does not think
        self._spent = 0  # tokens of thinking that has ended
        self._off = False  # the tokens seen are none that the form allows

    def _take(self, token: int) -> None:
        first = not self._seen
        self._seen.append(token)
        if self._thoughts is not None:
            self._thoughts += 1
            ends = (self._think_end, list(self._thinking.aside))
            if any(end and self._ends_with(end) for end in ends):
                self._spent, self._thoughts = self._thoughts, None
        elif self._opens(first):
            self._thoughts = self._spent
        elif self._matcher is not None and not self._off and not self._matcher.is_stopped():
            self._off = not self._matcher.try_consume_tokens([token])

    def _opens(self, first: bool) -> bool:
        """Whether the token that was taken last opens the thinking."""
        start = self._think_start
        if self._matcher is None:
            return bool(start) and self._ends_with(start)
        return first and self._seen == start[:1]


class Masks:
    """The masks of the rows of one step: one bit a token, all of them set to begin with."""

    def __init__(self, rows: int, vocabulary: int):
        self._vocabulary = vocabulary
        self._bits = np.full((rows, (vocabulary + 31) // 32), 0xFFFFFFFF, dtype=np.uint32)

    def row(self, index: int) -> Any:
        """Return the numbers of one row, to write to."""
        return self._bits[index]

    def apply(self, logits: mx.array) -> mx.array:
        """Return logits `(rows, vocabulary)` with what is not set at minus infinity."""
        # The lowest bit first, as llguidance writes them.
        truths = np.unpackbits(self._bits.view(np.uint8), axis=1, bitorder="little")
        allowed = mx.array(truths[:, : self._vocabulary].view(np.bool_))
        return mx.where(allowed, logits, -mx.inf)


def _only(mask: Any, tokens: Iterable[int]) -> None:
    mask[:] = 0
    _set(mask, *tokens)


def _set(mask: Any, *tokens: int) -> None:
    for token in tokens:
        mask[token // 32] |= np.uint32(1 << (token % 32))


def _sound_copy(matcher: LLMatcher) -> LLMatcher | None:
    """Return a copy, None if it could not begin.

    Copies share what has been learned of their form, and a limit to that: where one of them has
    come to it, all fail from then on.
    """
    copy = matcher.deep_copy()
    copy.compute_bitmask()
    return None if copy.is_error() else copy


def _reason(matcher: LLMatcher) -> str:
    """Return why a matcher has failed, without the tokens and the grammar that it tells as well."""
    said = matcher.get_error().partition("<state>")[0].strip()
    return "no text can fit it" if said == "NoExtensionBias" else said


def _refused(value: Any, reason: str, option: str = OPTION) -> InvalidParameterError:
    first, *more = reason.strip().splitlines() or ["it can't be compiled"]
    # Of a regular expression the first line says that it has an error, and a later one which.
    mark = "error: "
    cause = next((f" {line.removeprefix(mark)}" for line in more if line.startswith(mark)), "")
    return InvalidParameterError(option, value, f"`{option}`: {first[:300]}{cause[:300]}")
