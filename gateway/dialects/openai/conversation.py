"""The items of a conversation as messages for the model.

A model's reasoning, its text and its calls are items of their own, which templates know as one
message of the assistant; so they are joined again.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from gateway.dialects.data_urls import DataRoom, decoded_size
from gateway.dialects.openai.errors import Refused, quoted

__all__ = ["REFERENCE", "Conversation", "FindItem"]

Message = dict[str, Any]
Part = dict[str, Any]
FindItem = Callable[[str], dict[str, Any] | None]

ROLES = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}
TEXTS = {"input_text": "text", "output_text": "text", "text": "text", "refusal": "refusal"}
REFERENCE = "item_reference"
BLANK_LINE = "\n\n"


class Conversation:
    """The messages of earlier turns, and those of a new turn's input.

    `new` are the messages of the input alone; `paths` has for each of them the item that it begins
    with, such as `input[2]`. `calls` are the ids of further calls that may have an output here.
    `find` returns an earlier item by its id, for an item that only refers to it.
    """

    def __init__(
        self,
        earlier: Sequence[Message] = (),
        calls: Iterable[str] = (),
        find: FindItem = lambda own: None,
    ):
        self.earlier = list(earlier)
        self._find = find
        self._room = DataRoom()  # for the files of its items
        self._referred: set[str] = set()  # ids of items that are in the input already
        self.new: list[Message] = []
        self.paths: list[str] = []
        self._calls = set(calls)
        for message in earlier:
            self._calls.update(call["id"] for call in message.get("tool_calls") or ())

    def add_input(self, given: str | Sequence[dict[str, Any]] | None) -> None:
        """Add the input of a `response.create`. Raises Refused."""
        if isinstance(given, str):
            self._add("input", {"role": "user", "content": given})
            return
        for place, item in enumerate(given or ()):
            self.add_item(f"input[{place}]", item)

    def add_item(self, path: str, item: dict[str, Any]) -> None:
        """Add one item, which errors call by its path. Raises Refused."""
        kind = item.get("type") or ("message" if "role" in item or "id" not in item else REFERENCE)
        add = ITEMS.get(kind) if isinstance(kind, str) else None
        if add is None:
            said = f"`{path}.type`: `{quoted(kind)}` is not among {', '.join(ITEMS)}"
            raise Refused(said, f"{path}.type", "unsupported_value")
        add(self, path, item)

    def messages(self, instructions: str | None) -> tuple[list[Message], list[str]]:
        """Return all messages for the model, and for each the field that it comes from.

        System messages at the beginning become one, because many templates take no more.
        """
        whole = [*self.earlier, *self.new]
        paths = [*["previous_response_id"] * len(self.earlier), *self.paths]
        if instructions:
            whole.insert(0, {"role": "system", "content": instructions})
            paths.insert(0, "instructions")
        count = 0
        while count < len(whole) and _plain_system(whole[count]):
            count += 1
        if count > 1:
            text = BLANK_LINE.join(message["content"] for message in whole[:count])
            return [{"role": "system", "content": text}, *whole[count:]], [paths[0], *paths[count:]]
        return whole, paths

    def _add(self, path: str, message: Message) -> None:
        self.new.append(message)
        self.paths.append(path)

    def _of_assistant(self, path: str) -> Message:
        """Return the assistant's message that is still open, or begin one."""
        if not self.new or self.new[-1]["role"] != "assistant":
            self._add(path, {"role": "assistant", "content": ""})
        return self.new[-1]

    # Items.

    def _message(self, path: str, item: dict[str, Any]) -> None:
        given = item.get("role")
        role = ROLES.get(given) if isinstance(given, str) else None
        if role is None:
            said = f"`{path}.role`: must be one of {', '.join(ROLES)}"
            raise Refused(said, f"{path}.role", "invalid_value")
        content = _content(f"{path}.content", item.get("content"), self._room)
        last = self.new[-1] if self.new else None
        open_one = last is not None and last["role"] == "assistant" and not last["content"]
        if role == "assistant" and last is not None and open_one and not last.get("tool_calls"):
            last["content"] = content
        else:
            self._add(path, {"role": role, "content": content})

    def _reference(self, path: str, item: dict[str, Any]) -> None:
        own = _text(f"{path}.id", item.get("id"))
        if own in self._referred:
            raise Refused(f"`{path}.id`: the input has this item already", f"{path}.id")
        self._referred.add(own)
        found = self._find(own)
        if found is None:
            said = f"Item with id '{own[:256]}' not found."
            raise Refused(said, f"{path}.id", "item_not_found", status=404)
        self.add_item(path, found)

    def _reasoning(self, path: str, item: dict[str, Any]) -> None:
        parts = item.get("content") or item.get("summary")
        said = [part.get("text") for part in _dicts(parts)]
        text = "".join(text for text in said if isinstance(text, str))
        if text:
            message = {"role": "assistant", "content": "", "reasoning_content": text}
            self._add(path, message)

    def _call(self, path: str, item: dict[str, Any]) -> None:
        own, name = (_name(f"{path}.{field}", item.get(field)) for field in ("call_id", "name"))
        arguments = item.get("arguments") or "{}"
        call = {
            "id": own,
            "type": "function",
            "function": {"name": name, "arguments": _text(f"{path}.arguments", arguments)},
        }
        self._of_assistant(path).setdefault("tool_calls", []).append(call)
        self._calls.add(own)

    def _output(self, path: str, item: dict[str, Any]) -> None:
        own = _text(f"{path}.call_id", item.get("call_id"))
        if own not in self._calls:
            said = f"No tool call found for function call output with call_id {own[:256]}."
            raise Refused(said, "input")
        content = _content(f"{path}.output", item.get("output"), self._room)
        self._add(path, {"role": "tool", "tool_call_id": own, "content": content})


ITEMS: dict[str, Callable[[Conversation, str, dict[str, Any]], None]] = {
    "message": Conversation._message,  # noqa: SLF001 - its own table
    "reasoning": Conversation._reasoning,  # noqa: SLF001
    "function_call": Conversation._call,  # noqa: SLF001
    "function_call_output": Conversation._output,  # noqa: SLF001
    REFERENCE: Conversation._reference,  # noqa: SLF001
}


def _dicts(given: Any) -> list[dict[str, Any]]:
    return [one for one in given if isinstance(one, dict)] if isinstance(given, list) else []


def _plain_system(message: Message) -> bool:
    return message["role"] == "system" and isinstance(message["content"], str)


def _content(path: str, given: Any, room: DataRoom) -> str | list[Part]:
    """Return a message's content: a text, or the parts of one with images. Raises Refused."""
    if isinstance(given, str):
        return given
    if not isinstance(given, list):
        raise Refused(f"`{path}`: must be a string or a list of parts", path, "invalid_type")
    parts = [_part(f"{path}[{place}]", part, room) for place, part in enumerate(given)]
    if all(part["type"] == "text" for part in parts):
        return "".join(part["text"] for part in parts)
    return parts


def _part(path: str, part: Any, room: DataRoom) -> Part:
    kind = part.get("type") if isinstance(part, dict) else None
    if isinstance(kind, str) and kind in TEXTS:
        return {"type": "text", "text": _text(f"{path}.{TEXTS[kind]}", part.get(TEXTS[kind]))}
    if kind == "input_image":
        return _image(f"{path}.image_url", part.get("image_url"))
    if kind == "input_file":
        return {"type": "text", "text": _file(path, part, room)}
    said = f"`{path}.type`: must be one of {', '.join(TEXTS)}, input_image, input_file"
    raise Refused(said, f"{path}.type", "unsupported_value")


def _image(path: str, url: Any) -> Part:
    if not isinstance(url, str) or not url.startswith("data:image/"):
        said = f"`{path}`: must be an image as data, `data:image/…;base64,…`; none is fetched"
        raise Refused(said, path, "invalid_value")
    return {"type": "image_url", "image_url": {"url": url}}


def _file(path: str, part: Part, room: DataRoom) -> str:
    """Return a file's text after its name. Raises Refused for one that is not text, or no data.

    Also for one that there is no room for.
    """
    data, at = part.get("file_data"), f"{path}.file_data"
    if not isinstance(data, str):
        said = f"`{at}`: must be the file in base64; none is fetched or kept"
        raise Refused(said, at, "invalid_value")
    encoded = data.rpartition(",")[2]
    try:
        room.take(decoded_size(encoded))
    except ValueError as error:
        raise Refused(f"`{at}`: {error}", at, "invalid_value") from error
    try:
        text = base64.b64decode(encoded, validate=True).decode("utf-8-sig")
    except (binascii.Error, ValueError) as error:
        raise Refused(f"`{at}`: must be UTF-8 text in base64", at, "invalid_value") from error
    name = part.get("filename") or "file"
    return f"{_text(f'{path}.filename', name)}:\n{text.rstrip()}\n\n"


def _text(path: str, value: Any) -> str:
    if not isinstance(value, str):
        raise Refused(f"`{path}`: must be a string", path, "invalid_type")
    return value


def _name(path: str, value: Any) -> str:
    if not value:
        raise Refused(f"`{path}`: must not be empty", path, "invalid_value")
    return _text(path, value)
