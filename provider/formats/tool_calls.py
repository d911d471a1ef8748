"""The tool calls of an answer: shown while the model writes them, parsed when they are complete.

Rule 1: the parser of the model's format decides. A call whose shown parts differ from the parser's
result is reported as malformed.
Rule 2: a call that can't be parsed is never dropped; it is reported with the text of the model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

from provider.formats.families import model_format
from provider.formats.readers import Piece, as_json, is_name
from provider.interface import ToolCallDelta, new_call_id

__all__ = ["ToolText", "parse_calls"]

Fault = Literal["cut_off", "malformed"]


class ToolText:
    """The text between a start and an end marker of tool calls, which may have several calls.

    `first` is the index of its first call in the answer; `taken` are the ids of earlier calls.
    """

    def __init__(
        self,
        tokenizer: Any,
        tools: Sequence[Mapping[str, Any]],
        first: int = 0,
        taken: Collection[str] = (),
    ):
        self.calls: list[dict[str, Any]] = []  # calls that could be read, once closed
        self.broken: list[ToolCallDelta] = []  # calls that could not be read
        self._tokenizer = tokenizer
        self._tools = tools
        self._first = first
        self._taken = set(taken)
        self._format = model_format(tokenizer).calls
        self._reader = self._format.reader(tokenizer.tool_parser, tools)
        self._parts: list[str] = []
        self._shown: list[_Shown] = []
        self._written = ""  # the text with its markers, set by `close`

    def add(self, text: str) -> list[ToolCallDelta]:
        """Add more text; return the deltas that it produces."""
        self._parts.append(text)
        return [self._show(piece) for piece in self._reader.add(text)]

    def close(self, end: str = "", *, cut: bool = False) -> list[ToolCallDelta]:
        """Parse the calls at the end of the text; return deltas with the parts not yet shown.

        `end` is the end marker if the model wrote it; `cut` says that a limit cut the text off.
        """
        text = "".join(self._parts)
        parsed, whole = self._parsed_if_cut(text) if cut else self._parsed(text)
        self._written = f"{self._tokenizer.tool_call_start}{text}{end}"
        deltas: list[ToolCallDelta] = []
        for number, call in enumerate(parsed):
            deltas += self._end(number, call)
        if not whole or len(self._shown) > len(parsed):
            deltas += self._break(len(parsed), "cut_off" if cut else "malformed")
        return deltas

    def _parsed(self, text: str) -> tuple[list[dict[str, Any]], bool]:
        """Return the readable calls, and whether the text holds nothing else."""
        parser = self._tokenizer.tool_parser
        guess = self._format.is_guess
        calls, whole = parse_calls(text, parser, self._tools, is_guess=guess)
        if not calls and self._reader.whole:
            begun = text[: self._reader.whole]
            calls, _ = parse_calls(begun, parser, self._tools, is_guess=guess)
        return calls, whole

    def _parsed_if_cut(self, text: str) -> tuple[list[dict[str, Any]], bool]:
        """Return the calls that were complete at the cut, and whether no other text follows."""
        end = self._format.part_ends_with
        if end is None:
            return self._parsed(text)
        before, found, after = text.rpartition(end) if end else ("", "", text)
        calls = self._parsed(before + found)[0] if found else []
        return calls, bool(calls) and not after.strip()

    def _show(self, piece: Piece) -> ToolCallDelta:
        if piece.name is not None:
            taken = self._taken | {shown.id for shown in self._shown}
            own = piece.id if piece.id and piece.id not in taken else new_call_id()
            self._shown.append(_Shown(own, piece.name, []))
        self._shown[-1].arguments.append(piece.arguments)
        return self._delta(len(self._shown) - 1, name=piece.name, arguments=piece.arguments)

    def _end(self, number: int, call: dict[str, Any]) -> list[ToolCallDelta]:
        """Complete a call; report it as malformed if the shown parts differ from it."""
        if number >= len(self._shown):
            delta = self._delta(number, arguments=as_json(call["arguments"]), complete=True)
            own = delta.id if call["id"] in self._taken else call["id"]
            return self._done(call, replace(delta, id=own, name=call["name"]))
        shown = self._shown[number]
        newest = number == len(self._shown) - 1
        rest = self._reader.rest(call["arguments"]) if newest else ""
        shown.arguments.append(rest or ("" if shown.text else as_json(call["arguments"])))
        if not shown.is_call(call):
            return self._break(number, "malformed", most=1)
        added = shown.arguments[-1] or None
        return self._done(call, self._delta(number, arguments=added, complete=True))

    def _done(self, call: dict[str, Any], last: ToolCallDelta) -> list[ToolCallDelta]:
        self._taken.add(last.id)
        self.calls.append({**call, "id": last.id})
        return [last]

    def _break(self, number: int, fault: Fault, *, most: int | None = None) -> list[ToolCallDelta]:
        """Report calls from `number` on as broken: all that were shown, or one if none was.

        `most` limits the number of reported calls.
        """
        shown = max(1, len(self._shown) - number) if most is None else most
        found = [
            self._delta(one, complete=True, error=fault, text=self._written)
            for one in range(number, number + shown)
        ]
        self.broken += found
        return found

    def _delta(self, number: int, **given: Any) -> ToolCallDelta:
        own = self._shown[number].id if number < len(self._shown) else new_call_id()
        return ToolCallDelta(self._first + number, own, **given)


def parse_calls(
    text: str,
    parser: Callable[..., Any],
    tools: Sequence[Mapping[str, Any]],
    *,
    is_guess: Callable[[str, Mapping[str, Any]], bool] | None = None,
) -> tuple[list[dict[str, Any]], bool]:
    """Return the calls in one complete tool text, and whether all of it could be parsed.

    A call without an id of the model gets a new one. `is_guess` returns whether the parser has
    invented a call; such calls are dropped.
    """
    try:
        parsed = parser(text, list(tools) or None)
    except Exception:  # noqa: BLE001 - a parser may raise any exception for bad text
        return [], False
    found = parsed if isinstance(parsed, list) else [parsed]
    good = [call for call in found if _is_call(call) and not (is_guess and is_guess(text, call))]
    calls = [
        {
            "id": str(call.get("id") or new_call_id()),
            "name": call["name"],
            "arguments": _arguments(call.get("arguments")),
        }
        for call in good
    ]
    return calls, bool(found) and len(good) == len(found)


def _is_call(value: Any) -> bool:
    return isinstance(value, Mapping) and is_name(value.get("name"))


def _arguments(value: Any) -> dict[str, Any]:
    """Return the arguments as a dict; in some formats they are JSON text inside JSON."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return {"value": value}
    return dict(_plain(value)) if isinstance(value, Mapping) else {}


def _plain(value: Any) -> Any:
    """Return a value as it is after encoding and decoding it as JSON, as clients receive it."""
    try:
        return json.loads(as_json(value))
    except (TypeError, ValueError):  # JSON does not allow some keys of a dict
        return {"value": str(value)}


def _refuse(name: str) -> Any:
    raise ValueError(f"JSON has no {name}")


class _Shown(NamedTuple):
    """The parts of a call that were shown."""

    id: str
    name: str
    arguments: list[str]

    @property
    def text(self) -> str:
        return "".join(self.arguments)

    def is_call(self, call: Mapping[str, Any]) -> bool:
        """Return whether the shown parts are those of that call, in JSON."""
        try:
            arguments = _plain(json.loads(self.text, parse_constant=_refuse))
        except (ValueError, RecursionError):
            return False
        return bool(self.name == call["name"] and arguments == call["arguments"])
