"""Forms compiled by llguidance: JSON Schema, a regular expression, a grammar, choices, tool calls.

Rule: a form that can't be compiled is an error before anything runs, with the reason.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llguidance import LLMatcher, LLTokenizer

from provider.formats.call_grammar import call_lark
from provider.formats.families import model_format
from provider.formats.lark import BETWEEN
from provider.interface import InvalidParameterError
from provider.runtime.mlx_lm import inner_tokenizer

__all__ = ["Form", "GrammarCompiler", "form_of", "reason_of", "refuse_costly"]


OPTION = "response_format"

MOST_KEPT = 64  # compiled forms, each of up to some megabytes


@dataclass(frozen=True)
class Form:
    """The form of an answer: `grammar` in llguidance's own notation."""

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
    except (ValueError, TypeError, RecursionError) as error:  # TypeError for what is not JSON
        raise _refused(response_format, str(error)) from error


def refuse_costly(
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
    # llguidance takes options with an object alone, so that true and false become objects.
    given = {"allOf": [schema]} if isinstance(schema, bool) else schema
    return Form(LLMatcher.grammar_from_json_schema(json.dumps(given), overrides=overrides))


class GrammarCompiler:
    """Compiles forms for one tokenizer; for the thread that prepares prompts."""

    def __init__(self, tokenizer: Any, vocabulary: int):
        self._wrapped = tokenizer
        self._vocabulary = vocabulary
        self._tokenizer: LLTokenizer | None = None  # made when first needed, which takes a second
        self._kept: dict[Form, LLMatcher] = {}  # compiled forms, the last used at the end

    def matcher(self, response_format: Mapping[str, Any]) -> LLMatcher | None:
        """Return a new matcher, None for plain text. Raises InvalidParameterError."""
        form = form_of(response_format)
        if form is None:
            return None
        return self._copy(form, OPTION, response_format)

    def call_matcher(self, tools: Sequence[Mapping[str, Any]]) -> LLMatcher:
        """Return a matcher for one call of one of these tools, as the model writes calls.

        Raises InvalidParameterError if the schema of a tool's arguments can't be compiled,
        UnsupportedFeatureError if the model has no way to write such a call.
        """
        held_to = model_format(self._wrapped).calls.grammar
        grammar = call_lark(self._wrapped, held_to, tools)
        return self._copy(Form(LLMatcher.grammar_from_lark(grammar)), "tools", tools)

    def _copy(self, form: Form, option: str, value: Any) -> LLMatcher:
        kept = self._kept.pop(form, None)
        copy = None if kept is None else _sound_copy(kept)
        if kept is None or copy is None:
            kept = self._compile(form)
            if kept.is_error():
                raise _refused(value, reason_of(kept), option)
            copy = kept.deep_copy()
        self._kept[form] = kept
        if len(self._kept) > MOST_KEPT:
            del self._kept[next(iter(self._kept))]
        return copy

    def _compile(self, form: Form) -> LLMatcher:
        if self._tokenizer is None:
            # Brings transformers, which must come after mlx-lm has silenced its notices.
            from llguidance.hf import from_tokenizer  # noqa: PLC0415

            self._tokenizer = from_tokenizer(
                inner_tokenizer(self._wrapped),
                n_vocab=self._vocabulary,
                eos_token=sorted(self._wrapped.eos_token_ids),
            )
        matcher = LLMatcher(self._tokenizer, form.grammar, log_level=0)
        if not matcher.is_error():
            matcher.compute_bitmask()  # raises for a form that no token can begin
        return matcher


def _sound_copy(matcher: LLMatcher) -> LLMatcher | None:
    """Return a copy of a matcher, None if it fails at once.

    Copies share what has been learned of their form, and a limit to that: where one of them has
    come to it, all fail from then on.
    """
    copy = matcher.deep_copy()
    copy.compute_bitmask()
    return None if copy.is_error() else copy


def reason_of(matcher: LLMatcher) -> str:
    """Return why a matcher has failed, without the tokens and the grammar in its message."""
    said = matcher.get_error().partition("<state>")[0].strip()
    return "no text can fit it" if said == "NoExtensionBias" else said


def _refused(value: Any, reason: str, option: str = OPTION) -> InvalidParameterError:
    first, *more = reason.strip().splitlines() or ["it can't be compiled"]
    # Of a regular expression the first line says that it has an error, and a later one which.
    mark = "error: "
    cause = next((f" {line.removeprefix(mark)}" for line in more if line.startswith(mark)), "")
    return InvalidParameterError(option, value, f"`{option}`: {first[:300]}{cause[:300]}")
