"""Checks the JSON Schemas that callers give, before anything else uses them.

Templates, grammars and the parsers of tool calls all rely on well-formed schemas. Unknown keywords
pass unchecked; the value of a known keyword must have its proper type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from provider.errors import InvalidParameterError, unlike

__all__ = ["check_schema", "large_number", "size_of"]

LARGEST = 2**53  # beyond it not every whole number has a floating-point number of its own

MAX_NAME = 64  # characters of a name in a path

Check = Callable[[str, Any], None]


def check_schema(path: str, schema: Any) -> None:
    """Raise InvalidParameterError, with the path of the fault, unless `schema` is a JSON Schema."""
    try:
        _require_json(schema)
    except (TypeError, RecursionError) as error:
        raise InvalidParameterError(path, schema, f"`{path}` is not JSON: {error}") from error
    _schema(path, schema)


def _require_json(value: Any) -> None:
    """Raise TypeError or RecursionError unless a value is JSON, without writing it."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if not isinstance(name, str | int | float | None):
                raise TypeError(f"a name is of type {type(name).__name__}")
            _require_json(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            _require_json(inner)
    elif not isinstance(value, str | int | float | None):
        raise TypeError(f"a value is of type {type(value).__name__}")


def below(path: str, name: str) -> str:
    """Return the path of a field. Of a long name it has the beginning.

    The path is made for each field, and a schema may have thousands below a name of megabytes.
    """
    return f"{path}.{name}" if len(name) <= MAX_NAME else f"{path}.{name[:MAX_NAME]}…"


def size_of(value: Any, most: int) -> int:
    """Return about how many bytes of JSON a value takes; stop counting beyond `most`."""
    size, waiting = 0, [value]
    while waiting and size <= most:
        one = waiting.pop()
        size += 2
        if isinstance(one, str):
            size += len(one.encode(errors="replace"))
        elif isinstance(one, Mapping):
            waiting += [*one, *one.values()]
        elif isinstance(one, list | tuple):
            waiting += one
    return size


def large_number(path: str, value: Any) -> InvalidParameterError | None:
    """Return an error with the path of the first number beyond LARGEST, None if there is none."""
    waiting = [(path, value)]
    while waiting:
        at, one = waiting.pop()
        if isinstance(one, Mapping):
            waiting += [(below(at, name), inner) for name, inner in reversed(list(one.items()))]
        elif isinstance(one, list | tuple):
            waiting += [(f"{at}[{i}]", inner) for i, inner in reversed(list(enumerate(one)))]
        elif isinstance(one, int | float) and not -LARGEST <= one <= LARGEST:
            return unlike(at, one, f"from -2^53 ({-LARGEST}) to 2^53 in a constraint")
    return None


def _schema(path: str, value: Any) -> None:
    if isinstance(value, bool):
        return
    if not isinstance(value, Mapping):
        raise unlike(path, value, "a JSON Schema")
    for name, inner in value.items():
        if name in KEYWORDS:
            KEYWORDS[name](f"{path}.{name}", inner)


def _schemas(path: str, value: Any) -> None:
    if not isinstance(value, list | tuple) or not value:
        raise unlike(path, value, "a non-empty list of JSON Schemas")
    for i, one in enumerate(value):
        _schema(f"{path}[{i}]", one)


def _items(path: str, value: Any) -> None:
    """Check the value of `items`: a schema, or in older drafts a list of schemas."""
    if isinstance(value, list | tuple):
        _schemas(path, value)
    else:
        _schema(path, value)


def _named(path: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise unlike(path, value, "an object of JSON Schemas by name")
    for name, one in value.items():
        _schema(below(path, name), one)


def _texts(path: str, value: Any) -> None:
    if not isinstance(value, list | tuple) or not all(isinstance(one, str) for one in value):
        raise unlike(path, value, "a list of strings")


def _type(path: str, value: Any) -> None:
    if isinstance(value, str):
        return
    if not isinstance(value, list | tuple) or not value:
        raise unlike(path, value, "the name of a type, or a list of them")
    _texts(path, value)


def _list(path: str, value: Any) -> None:
    if not isinstance(value, list | tuple):
        raise unlike(path, value, "a list")


def _text(path: str, value: Any) -> None:
    if not isinstance(value, str):
        raise unlike(path, value, "a string")


def _count(path: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise unlike(path, value, "a whole number from 0")


def _number(path: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise unlike(path, value, "a number")


KEYWORDS: dict[str, Check] = {
    "type": _type,
    "enum": _list,
    "required": _texts,
    "items": _items,
    **dict.fromkeys(("$ref", "pattern", "title", "description"), _text),
    **dict.fromkeys(("properties", "patternProperties", "$defs", "definitions"), _named),
    **dict.fromkeys(("anyOf", "oneOf", "allOf", "prefixItems"), _schemas),
    **dict.fromkeys(("additionalProperties", "not", "contains", "propertyNames"), _schema),
    **dict.fromkeys(("if", "then", "else"), _schema),
    **dict.fromkeys(("minItems", "maxItems", "minLength", "maxLength"), _count),
    **dict.fromkeys(("minProperties", "maxProperties"), _count),
    **dict.fromkeys(("minimum", "maximum", "multipleOf"), _number),
}
