"""Builds a grammar in llguidance's Lark dialect from rules, literals, JSON values and texts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["BETWEEN", "GAP", "NUMBER", "Lark", "Schema"]

# White space between JSON's tokens: a space, or a new line and its indentation. JSON allows any
# amount, but small models may then write white space without end.
BETWEEN = r"( |\n[ \t]{0,32})?"
GAP, NUMBER = "\0", "\1"  # placeholders in a template: optional white space, and 1 to 3 digits
CLASSES = {GAP: "GAP", NUMBER: "NUMBER"}
Schema = Mapping[str, Any]
WHOLE = "whole"  # name of the definition with the whole schema, into which references point


class Lark:
    """A grammar under construction; its methods return items, which are parts of a rule as text."""

    def __init__(self, tokenizer: Any):
        # llguidance never matches an added token, special or not, with text.
        added = tokenizer.added_tokens_decoder
        self.tokens = {str(token): number for number, token in added.items()}
        self._rules = [r"GAP: /[ \n]?/", "NUMBER: /[0-9]{1,3}/"]
        known = [*sorted(self.tokens, key=len, reverse=True), *CLASSES]
        self._known = re.compile(f"({'|'.join(map(re.escape, known))})")

    def grammar(self, start: str) -> str:
        """Return the whole grammar, which begins with the items `start`."""
        return "\n".join([f"start: {start}", *self._rules])

    def rule(self, body: str) -> str:
        """Add a rule; return its name."""
        name = f"r{len(self._rules)}"
        self._rules.append(f"{name}: {body}")
        return name

    def literal(self, text: str) -> str:
        """Return items for a literal text with placeholders; added tokens in it match as tokens."""
        return " ".join(self._item(piece) for piece in self._split(text))

    def json(self, schema: Schema, whole: Schema) -> str:
        """Return a rule for JSON that fits `schema`, whose references point into `whole`."""
        guided = {**_moved(schema), "x-guidance": {"whitespace_pattern": BETWEEN}}
        if '"$ref"' in json.dumps(guided):
            guided["$defs"] = {WHOLE: _moved(whole)}
        return self.rule(f"%json {json.dumps(guided)}")

    def text(self, end: str, but: Iterable[str] = ()) -> str:
        """Return items for a text up to the marker `end`; it must not match a pattern of `but`."""
        first, *more = self._split(end)
        refused = [f"(?s:.*){_as_regex(first.strip())}(?s:.*)", *but]
        terminal = f"T{len(self._rules)}"
        body = " & ".join(["/(?s:.*)/", *(f"~/{one}/" for one in refused)])
        self._rules.append(f"{terminal}: {body}")
        if first in self.tokens:
            return f"{terminal} {self.literal(end)}"
        # A lazy terminal makes the lexer stop at the first occurrence of the marker.
        lazy = f"l{len(self._rules)}"
        self._rules.append(f"{lazy}[suffix={json.dumps(first)}]: {terminal}")
        return " ".join([lazy, *map(self._item, more)])

    def _split(self, text: str) -> list[str]:
        """Split a text into added tokens, placeholders, and the text between them."""
        return [piece for piece in self._known.split(text) if piece]

    def _item(self, piece: str) -> str:
        if piece in CLASSES:
            return CLASSES[piece]
        return f"<[{self.tokens[piece]}]>" if piece in self.tokens else json.dumps(piece)


def _moved(schema: Any) -> Any:
    """Return `schema` with each `$ref` to the root changed to one into the definition WHOLE."""
    if isinstance(schema, Mapping):
        return {
            key: f"#/$defs/{WHOLE}{value[1:]}" if _is_reference(key, value) else _moved(value)
            for key, value in schema.items()
        }
    return [_moved(one) for one in schema] if isinstance(schema, list | tuple) else schema


def _is_reference(key: str, value: Any) -> bool:
    return key == "$ref" and isinstance(value, str) and (value == "#" or value.startswith("#/"))


def _as_regex(text: str) -> str:
    return re.escape(text).replace("/", r"\/")
