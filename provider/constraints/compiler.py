"""Compiles the constraints on answers with llguidance.

A constraint is a JSON Schema, a regular expression, a Lark grammar, a list of choices, or a tool
call. Rule: one that can't be compiled is refused with the reason before the request runs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from provider.constraints.matcher import Matcher, SharedGrammar, reason_of
from provider.formats.call_grammar import call_lark
from provider.formats.families import model_format
from provider.formats.lark import BETWEEN
from provider.inputs.schemas import large_number, size_of
from provider.interface import InvalidParameterError
from provider.runtime.mlx_lm import inner_tokenizer

__all__ = ["Constraint", "GrammarCompiler", "constraint_of", "refuse_costly", "refuse_large"]


OPTION = "response_format"
FIELDS = {"json_schema": "schema", "regex": "regex", "lark": "grammar", "choice": "choices"}

MAX_SOURCE_BYTES = 1 << 20  # of a constraint, or of all tools' schemas; 50,000 words take 0.9 MiB
# States of the lexer, each of some 500 bytes; 4,000 answers of 20,000 choices made 80,000.
LIMITS = LLParserLimits(max_lexer_states=100_000)
MAX_COMPILED = 64  # compiled constraints that are kept
MAX_COMPILED_BYTES = 256 << 20  # what they may hold together, as `SharedGrammar.nbytes` estimates


@dataclass(frozen=True)
class Constraint:
    """A constraint on an answer, as a grammar in llguidance's notation."""

    grammar: str


def constraint_of(response_format: Mapping[str, Any]) -> Constraint | None:
    """Return the requested constraint, None for plain text. Raises InvalidParameterError."""
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
                return Constraint(LLMatcher.grammar_from_regex(given["regex"]))
            case "lark":
                return Constraint(LLMatcher.grammar_from_lark(given["grammar"]))
            case _:
                choices = "|".join(re.escape(choice) for choice in given["choices"])
                return Constraint(LLMatcher.grammar_from_regex(choices))
    except (ValueError, TypeError, RecursionError) as error:  # values that are not JSON: TypeError
        raise _not_compiled(response_format, str(error), OPTION) from error


def refuse_large(
    response_format: Mapping[str, Any] | None, tools: Sequence[Mapping[str, Any]]
) -> None:
    """Raise InvalidParameterError if a constraint's source has more than MAX_SOURCE_BYTES."""
    field = FIELDS.get(response_format["type"]) if response_format else None
    if response_format and field:
        _refuse_large(f"{OPTION}.{field}", response_format[field])
    for number, tool in enumerate(tools):
        _refuse_large(f"tools[{number}].function.parameters", tool["function"]["parameters"])
    _refuse_large("tools", [tool["function"]["parameters"] for tool in tools])


def _refuse_large(path: str, source: Any) -> None:
    if size_of(source, MAX_SOURCE_BYTES) > MAX_SOURCE_BYTES:
        said = f"`{path}` must have at most {MAX_SOURCE_BYTES:,} bytes in a constraint"
        raise InvalidParameterError(path, "…", said)


def refuse_costly(
    first_costly: Callable[[Sequence[str]], int | None],
    response_format: Mapping[str, Any] | None,
    tools: Sequence[Mapping[str, Any]],
) -> None:
    """Raise InvalidParameterError if a constraint is too expensive.

    The arguments' schema of each tool is checked too, because a call's grammar consists of them.
    `first_costly` returns the index of the first grammar that is beyond the limits of time and
    memory, None if there is none.
    """
    constraint = constraint_of(response_format) if response_format else None
    checked = [] if constraint is None else [(constraint, OPTION, response_format)]
    for tool in tools:
        schema = tool["function"]["parameters"]
        checked.append((_json(schema), "tools", schema))
    costly = first_costly([one.grammar for one, _, _ in checked])
    if costly is not None:
        _, option, value = checked[costly]
        raise _refused(value, "it takes too much time or memory", option)


def _json(schema: Mapping[str, Any] | bool) -> Constraint:
    overrides: Any = {"whitespace_pattern": BETWEEN}
    # llguidance accepts options only for an object, so the schemas true and false become objects.
    given = {"allOf": [schema]} if isinstance(schema, bool) else schema
    return Constraint(LLMatcher.grammar_from_json_schema(json.dumps(given), overrides=overrides))


class GrammarCompiler:
    """Compiles constraints for one tokenizer; must be used on the model's prompt thread only."""

    def __init__(self, tokenizer: Any, vocabulary: int):
        # This imports transformers, which must come after mlx-lm has silenced its notices.
        from llguidance.hf import from_tokenizer  # noqa: PLC0415

        self._from_tokenizer = from_tokenizer
        self._wrapped = tokenizer
        self._vocabulary = vocabulary
        self._tokenizer: LLTokenizer | None = None  # created at first use, which takes a second
        self._kept: dict[Constraint, Matcher] = {}  # least recently used first

    def matcher(self, response_format: Mapping[str, Any]) -> Matcher | None:
        """Return a new matcher of a format, None for plain text. Raises InvalidParameterError."""
        constraint = constraint_of(response_format)
        if constraint is None:
            return None
        return self._copy(constraint, OPTION, response_format)

    def call_matcher(self, tools: Sequence[Mapping[str, Any]]) -> Matcher:
        """Return a matcher for exactly one call of one of these tools, in the model's format.

        Raises InvalidParameterError if the schema of a tool's arguments can't be compiled,
        UnsupportedFeatureError if the model's format can't express such a call.
        """
        calls = model_format(self._wrapped).calls
        grammar = call_lark(self._wrapped, calls.grammar, tools)
        return self._copy(Constraint(LLMatcher.grammar_from_lark(grammar)), "tools", tools)

    def _copy(self, constraint: Constraint, option: str, value: Any) -> Matcher:
        kept = self._kept.pop(constraint, None)
        copy = None if kept is None else _working_copy(kept)
        if kept is None or copy is None:
            compiled = self._compile(constraint)
            if compiled.is_error():
                raise _not_compiled(value, reason_of(compiled), option)
            kept = Matcher(compiled, SharedGrammar(source=len(constraint.grammar)))
            copy = kept.copy()
        self._kept[constraint] = kept
        self._forget_old()
        return copy

    def _forget_old(self) -> None:
        """Keep the most recently used constraints, as many as the limits allow."""
        held = sum(one.shared.nbytes for one in self._kept.values())
        while len(self._kept) > MAX_COMPILED or held > MAX_COMPILED_BYTES:
            held -= self._kept.pop(next(iter(self._kept))).shared.nbytes

    def _compile(self, constraint: Constraint) -> LLMatcher:
        if self._tokenizer is None:
            self._tokenizer = self._from_tokenizer(
                inner_tokenizer(self._wrapped),
                n_vocab=self._vocabulary,
                eos_token=sorted(self._wrapped.eos_token_ids),
            )
        matcher = LLMatcher(self._tokenizer, constraint.grammar, log_level=0, limits=LIMITS)
        if not matcher.is_error():
            matcher.compute_bitmask()  # sets the error now if no token can begin the answer
        return matcher


def _working_copy(matcher: Matcher) -> Matcher | None:
    """Return a copy of a matcher, None if the copy has failed already.

    All copies share one table of states, and a limit on its size. Once one copy has reached that
    limit, all of them fail. So a matcher whose table may be large is not used for another answer.
    """
    if matcher.shared.worn:
        return None
    copy = matcher.copy()
    copy.inner.compute_bitmask()
    return None if copy.inner.is_error() else copy


def _not_compiled(value: Any, reason: str, option: str) -> InvalidParameterError:
    """Return the error for what llguidance refuses, with the path of a number that is too large."""
    of_number = re.search(r"range|digits|decimal|number", reason)
    return (large_number(option, value) if of_number else None) or _refused(value, reason, option)


def _refused(value: Any, reason: str, option: str = OPTION) -> InvalidParameterError:
    first, *more = reason.strip().splitlines() or ["it can't be compiled"]
    # For a regular expression, the first line says that there is an error, a later one which.
    mark = "error: "
    cause = next((f" {line.removeprefix(mark)}" for line in more if line.startswith(mark)), "")
    return InvalidParameterError(option, value, f"`{option}`: {first[:300]}{cause[:300]}")
