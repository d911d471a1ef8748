"""Grammars of tool calls, which constrain a model when a call is required.

provider.formats.families combines these parts into one grammar per family. Every text that such a
grammar allows is read back by the family's parser as arguments that fit the tool's schema.

Rule 1: arguments come in the order of the schema, as in llguidance's JSON.
Rule 2: in formats with unquoted strings, a string is constrained by its type, an enum or a const,
but not by a pattern or a length, because only the end marker determines where it ends.
Rule 3: a schema or name that a format can't express is an UnsupportedFeatureError.
"""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from provider.formats.lark import GAP, Lark, Schema
from provider.inputs.tools import NAME
from provider.interface import UnsupportedFeatureError

__all__ = [
    "IDENTIFIER",
    "JSON_LIKE",
    "NULL",
    "WORD",
    "CallGrammar",
    "Headed",
    "IfRequired",
    "IfToken",
    "InJson",
    "Named",
    "bare",
    "call_lark",
    "in_json",
    "quoted",
]


class CallGrammar(Protocol):
    """The grammar of a family's tool calls; items are parts of a Lark rule, as text."""

    def call(self, lark: Lark, function: Mapping[str, Any]) -> str:
        """Return Lark items that match a call of a function. Raises UnsupportedFeatureError."""


def call_lark(
    tokenizer: Any, grammar: CallGrammar | None, tools: Sequence[Mapping[str, Any]]
) -> str:
    """Return a Lark grammar for exactly one call of one of these tools, with the model's markers.

    `tools` have OpenAI's nested form. Raises UnsupportedFeatureError for a tool that the format
    can't express, and if `grammar` is None because the family has no grammar.
    """
    if not tokenizer.tool_call_start or grammar is None:
        raise _unsupported("this model's format of tool calls can't be enforced; use `auto`")
    lark = Lark(tokenizer)
    try:
        calls = [grammar.call(lark, tool["function"]) for tool in tools]
    except RecursionError:
        raise _unsupported("this model's format of tool calls has no recursive schemas") from None
    begin, end = lark.literal(tokenizer.tool_call_start), lark.literal(tokenizer.tool_call_end)
    return lark.grammar(f"{begin} ({' | '.join(calls)}) {end}")


# How the arguments are written. -----------------------------------------------------------------

WORD = r"\w+"
IDENTIFIER = rf"(?!(?:{'|'.join(keyword.kwlist)})$)[^\W\d]\w*"  # a name in Python
SCALARS = {"integer", "number", "boolean", "null"}
NULL = r"\s*(?i:null)\s*"  # text that several parsers read as None, even for a string
# Text that Muse Spark's parser reads as JSON, even for a string.
JSON_LIKE = (
    r"\s*(-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?|true|false|NaN|-?Infinity|[\[{\"](?s:.*))\s*"
)
# Returns items for a value and its end marker. The arguments are the grammar, the value's schema,
# the whole schema that has the definitions, and the end marker.
Value = Callable[[Lark, Schema, Schema, str], str]


def bare(*but: str) -> Value:
    """Return a Value, a maker of items, that writes strings unquoted and other types as JSON.

    A string must not match any of the patterns `but`.
    """

    def value(lark: Lark, schema: Schema, whole: Schema, end: str) -> str:
        words = _words(schema)
        if words is not None:
            written = [word if isinstance(word, str) else _json(word) for word in words]
            return f"({' | '.join(map(lark.literal, written))}) {lark.literal(end)}"
        if _may_be(schema, whole, "string"):
            nullable = schema.get("nullable") or _may_be(schema, whole, "null")
            return lark.text(end, [one for one in but if not (nullable and one == NULL)])
        return in_json(lark, schema, whole, end)

    return value


def in_json(lark: Lark, schema: Schema, whole: Schema, end: str) -> str:
    """Return Lark items that match a value as JSON and then its end marker."""
    return f"{lark.json(schema, whole)} {lark.literal(end)}"


def quoted(mark: str, *but: str, nested: bool = False) -> Value:
    """Return a Value, a maker of items, that writes strings between marks, other scalars as JSON.

    A string must not match any of the patterns `but`. If `nested`, lists and objects with unquoted
    keys are supported too.
    """

    def value(lark: Lark, schema: Schema, whole: Schema, end: str) -> str:
        return f"{inner(lark, _resolved(schema, whole), whole)} {lark.literal(end)}"

    def inner(lark: Lark, schema: Schema, whole: Schema) -> str:
        words, kind = _words(schema), schema.get("type")
        if words is not None:
            texts = [f"{mark}{w}{mark}" if isinstance(w, str) else _json(w) for w in words]
            return f"({' | '.join(map(lark.literal, texts))})"
        if kind == "string":
            return f"{lark.literal(mark)} {lark.text(mark, but)}"
        if {*([kind] if isinstance(kind, str) else kind or [""])} <= SCALARS:
            return lark.json(schema, whole)
        if nested and kind == "object":
            fields = [
                (key, f"{lark.literal(f'{_checked(WORD, key)}:')} {value(lark, one, whole, '')}")
                for key, one in _properties(schema).items()
            ]
            items = _sequence(lark, fields, schema.get("required", ()), ",")
            return f"{lark.literal('{')} {items} {lark.literal('}')}"
        if nested and kind == "array":
            return _listed(lark, value(lark, schema.get("items", {}), whole, ""), schema)
        raise _unsupported(
            f"this model's format of tool calls can't express `{_json(schema)[:200]}`"
        )

    return value


def _listed(lark: Lark, item: str, schema: Schema) -> str:
    """Return Lark items that match a list of `item`, with the lengths that `schema` allows."""
    least, most = schema.get("minItems", 0), schema.get("maxItems")
    if most == 0:
        return lark.literal("[]")
    one = lark.rule(item)
    upper = "" if most is None else most - 1
    some = lark.rule(f'{one} ("," {one}){{{max(least - 1, 0)},{upper}}}')
    return f'"[" {some} "]"' if least else f'"[" ({some})? "]"'


def _sequence(
    lark: Lark, fields: Sequence[tuple[str, str]], required: Sequence[str], between: str = ""
) -> str:
    """Return the name of a Lark rule that matches fields in the given order.

    Each field is its name and its items. Those that are not `required` may be absent. `between` is
    the separator of two fields.
    """
    separated = lark.literal(between)
    first = more = '""'  # rules for the remaining fields: before the first written one, and after
    for name, items in reversed(fields):
        left_out = name not in required
        first, more = (
            lark.rule(f"{items} {more}" + (f" | {first}" if left_out else "")),
            lark.rule(f"{separated} {items} {more}" + (f" | {more}" if left_out else "")),
        )
    return first


def _properties(schema: Schema) -> dict[str, Any]:
    """Return the schemas of an object's fields; an undescribed required field has the schema {}."""
    given = dict(schema.get("properties", {}))
    return {**given, **{key: {} for key in schema.get("required", ()) if key not in given}}


def _resolved(schema: Any, whole: Schema) -> Schema:
    """Return a schema with its `$ref` followed within `whole`, {} if nothing is found there.

    Raises RecursionError for a schema that only refers to itself.
    """
    gone: set[str] = set()
    while isinstance(schema, Mapping) and str(schema.get("$ref", "")).startswith("#/"):
        if schema["$ref"] in gone:
            raise RecursionError(schema["$ref"])
        gone.add(schema["$ref"])
        found: Any = whole
        for name in schema["$ref"][2:].split("/"):
            found = found.get(name) if isinstance(found, Mapping) else None
        schema = found
    return schema if isinstance(schema, Mapping) else {}


def _words(schema: Schema) -> Sequence[Any] | None:
    """Return the values of a schema's `const` or `enum`, None if it has neither."""
    if "const" in schema:
        return [schema["const"]]
    return schema["enum"] if isinstance(schema.get("enum"), list) else None


def _may_be(schema: Schema, whole: Schema, kind: str) -> bool:
    """Return whether a value of type `kind` may fit the schema."""
    given = schema.get("type")
    if given is not None:
        return bool(kind == given if isinstance(given, str) else kind in given)
    ways = schema.get("anyOf") or schema.get("oneOf")
    return not ways or any(_may_be(_resolved(way, whole), whole, kind) for way in ways)


def _type_name(schema: Schema, whole: Schema) -> str:
    """Return the type name that Kimi K3 writes before a value."""
    words = _words(schema)
    if words is not None:
        text = all(isinstance(word, str) for word in words)
    else:
        text = _may_be(schema, whole, "string")
    kind = schema.get("type", "object")
    return "string" if text else kind if isinstance(kind, str) else kind[0]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _checked(pattern: str, name: str) -> str:
    if not re.fullmatch(pattern, name):
        raise _unsupported(f"this model's format of tool calls can't express the name `{name}`")
    return name


def _unsupported(said: str) -> UnsupportedFeatureError:
    return UnsupportedFeatureError("tool_choice", f"`tool_choice`: {said}")


# The formats. -----------------------------------------------------------------------------------


class InJson:
    """Calls of the form `{"name": …, "arguments": {…}}`, between two literals."""

    def __init__(self, before: str = GAP, after: str = GAP):
        self._before, self._after = before, after

    def call(self, lark: Lark, function: Mapping[str, Any]) -> str:
        """Return Lark items that match a call of a function."""
        whole = _of_object(function)
        call = {
            "type": "object",
            "properties": {"name": {"const": function["name"]}, "arguments": whole},
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        items = lark.json(call, whole)
        return f"{lark.literal(self._before)} {items} {lark.literal(self._after)}"


def _of_object(function: Mapping[str, Any]) -> Schema:
    """Return the schema of a function's arguments, with the type object."""
    return {**function["parameters"], "type": "object"}


class Headed:
    """Calls that are a header with the name, then the arguments as one JSON object."""

    def __init__(self, before: str, after: str = ""):
        self._before, self._after = before, after

    def call(self, lark: Lark, function: Mapping[str, Any]) -> str:
        """Return Lark items that match a call of a function. Raises UnsupportedFeatureError."""
        name, whole = _checked(NAME, function["name"]), _of_object(function)
        before = lark.literal(self._before.format(name=name))
        return f"{before} {lark.json(whole, whole)} {lark.literal(self._after)}"


class IfToken:
    """The grammar `then` if the vocabulary has a token, else the grammar `other`."""

    def __init__(self, token: str, then: CallGrammar, other: CallGrammar):
        self._token, self._then, self._other = token, then, other

    def call(self, lark: Lark, function: Mapping[str, Any]) -> str:
        """Return Lark items that match a call of a function. Raises UnsupportedFeatureError."""
        grammar = self._then if self._token in lark.tokens else self._other
        return grammar.call(lark, function)


class Named:
    """Calls that are a name, then each argument as a key and a value.

    `before` (with `{name}`) comes before all arguments, `after` comes after them, and `between`
    separates two of them. `key` (with `{key}` and optionally `{type}`) comes before a value, and
    `ends` after it. `names` and `keys` are patterns of the names and keys that can be written.
    """

    def __init__(
        self,
        before: str,
        key: str,
        value: Value,
        ends: str = "",
        after: str = "",
        *,
        between: str = "",
        names: str | None = None,
        keys: str | None = None,
    ):
        self._before, self._key, self._value, self._ends = before, key, value, ends
        self._after, self._between = after, between
        self._names, self._keys = names or NAME, keys or r'[^<>"\n]+'

    def call(self, lark: Lark, function: Mapping[str, Any]) -> str:
        """Return Lark items that match a call of a function. Raises UnsupportedFeatureError."""
        name, whole = _checked(self._names, function["name"]), function["parameters"]
        fields = [(key, self._one(lark, whole, key)) for key in _properties(whole)]
        arguments = _sequence(lark, fields, whole.get("required", ()), self._between)
        before, after = lark.literal(self._before.format(name=name)), lark.literal(self._after)
        return f"{before} {arguments} {after}"

    def _one(self, lark: Lark, whole: Schema, key: str) -> str:
        schema = _resolved(_properties(whole)[key], whole)
        kind = _type_name(schema, whole)
        head = lark.literal(self._key.format(key=_checked(self._keys, key), type=kind))
        return f"{head} {self._value(lark, schema, whole, self._ends)}"


class IfRequired:
    """The grammar `then` for a tool with required arguments, else the grammar `other`."""

    def __init__(self, then: CallGrammar, other: CallGrammar):
        self._then, self._other = then, other

    def call(self, lark: Lark, function: Mapping[str, Any]) -> str:
        """Return Lark items that match a call of a function. Raises UnsupportedFeatureError."""
        grammar = self._then if function["parameters"].get("required") else self._other
        return grammar.call(lark, function)
