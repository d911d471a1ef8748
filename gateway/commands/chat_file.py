"""A conversation in a file: as JSON, with which a chat goes on, or as Markdown, for reading."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import msgspec

__all__ = ["BadFile", "Kept", "is_json", "path_of", "read", "write"]


class BadFile(Exception):  # noqa: N818 - what the user is told
    """A file can't be read or written; the message names it and says why."""


class _Part(msgspec.Struct):
    type: str
    text: str | None = None


class _Function(msgspec.Struct):
    name: str
    arguments: str | None = None


class _Call(msgspec.Struct):
    function: _Function


class _Turn(msgspec.Struct):
    role: Literal["system", "user", "assistant", "tool"]
    content: str | list[_Part] | None = None
    tool_calls: list[_Call] | None = None


class Kept(msgspec.Struct, omit_defaults=True):
    """What is kept of a conversation."""

    messages: list[dict[str, Any]]
    system_prompt: str | None = None
    model: str | None = None


def path_of(name: str) -> Path:
    """Return the path that a user has named; `~NAME` is a file unless there is such a user."""
    path = Path(name)
    with suppress(RuntimeError):
        path = path.expanduser()
    return path


def write(kept: Kept, path: Path, *, over: bool) -> None:
    """Write a conversation, over a file that is there only if `over`. Raises BadFile."""
    with _telling(path):
        if path.exists() and not over:
            raise BadFile(f"{path} is there already; name another file")
        text = _as_json(kept) if is_json(path) else _as_markdown(kept)
        data = text.encode()  # before the file is opened, which empties it
        path.write_bytes(data)


def read(path: Path) -> Kept:
    """Read a conversation that `write` has written as JSON. Raises BadFile."""
    with _telling(path):
        data = path.read_bytes()
        try:
            kept = msgspec.json.decode(data, type=Kept)
            msgspec.convert(kept.messages, list[_Turn])
        except (ValueError, RecursionError):
            said = f"{path} is no conversation that `/save FILE.json` has written"
            raise BadFile(said) from None
    return kept


def is_json(path: Path) -> bool:
    """Return whether a file of this name is written as JSON."""
    return path.suffix.lower() == ".json"


@contextmanager
def _telling(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BadFile(f"{path}: {error.strerror}") from None
    except ValueError as error:  # a name, or a text, that no file can have
        raise BadFile(f"{path}: {error}") from None


def _as_json(kept: Kept) -> str:
    found = {"system_prompt": kept.system_prompt, "model": kept.model}
    whole = {name: value for name, value in found.items() if value}
    return f"{json.dumps({**whole, 'messages': kept.messages}, ensure_ascii=False, indent=2)}\n"


def _as_markdown(kept: Kept) -> str:
    turns = [*kept.messages]
    if kept.system_prompt:
        turns.insert(0, {"role": "system", "content": kept.system_prompt})
    return "\n".join(f"**{turn['role']}**\n\n{_content(turn)}\n" for turn in turns)


def _content(turn: dict[str, Any]) -> str:
    content: str | Sequence[dict[str, Any]] = turn.get("content") or ""
    if not isinstance(content, str):
        content = "\n\n".join(part.get("text") or f"({part['type']})" for part in content)
    calls = [call["function"] for call in turn.get("tool_calls") or ()]
    said = [f"`{one['name']} {one.get('arguments') or '{}'}`" for one in calls]
    return "\n".join(part for part in (content, *said) if part)
