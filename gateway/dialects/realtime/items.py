"""The conversation of a connection: its items in order, and the room that they take.

Rule 1: an item is checked when it comes, so that what can't be shown to a model is never kept.
Rule 2: what the conversations of all connections hold is bounded, and so is each client's part. An
item of a client is refused beyond that; one that a model writes is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from gateway.dialects import json_text
from gateway.dialects.openai.answer import new_id
from gateway.dialects.openai.conversation import REFERENCE, Conversation
from gateway.dialects.openai.errors import Refused, overloaded
from gateway.dialects.realtime.server_events import Item

__all__ = ["ROOT", "Items", "Room"]

ROOT = "root"  # names the place before all items
MAX_ID = 64  # characters
ITEM_BYTES = 512  # of an item beside its content, about
# What is kept of an item beside its id, by its type.
FIELDS = {
    "message": ("role", "content"),
    "function_call": ("call_id", "name", "arguments"),
    "function_call_output": ("call_id", "output"),
}


class Room:
    """The bytes that conversations hold, of which a client may have half."""

    def __init__(self, most: int):
        self._most = most
        self._by_client: Counter[str | None] = Counter()
        self.held = 0

    def fits(self, client: str | None, size: int) -> bool:
        """Return whether a client may have so many bytes more."""
        share = self._by_client[client] + size <= self._most // 2
        return share and self.held + size <= self._most

    def add(self, client: str | None, size: int) -> None:
        """Count bytes of a client, or with a negative size no longer count them."""
        self.held += size
        self._by_client[client] += size
        if not self._by_client[client]:
            del self._by_client[client]


class Items:
    """The items of one conversation; those of type `reasoning` are for the model alone."""

    def __init__(self, room: Room, client: str | None):
        self.id = new_id("conv")
        self._room, self._client = room, client
        self._items: list[Item] = []
        self._sizes: dict[str, int] = {}

    # Items of the client.

    def read(self, given: Any, path: str) -> Item:
        """Return an item of the client as it is kept; it is not yet added. Raises Refused."""
        kind = given.get("type") or "message" if isinstance(given, dict) else None
        if not isinstance(kind, str) or kind not in FIELDS:
            said = f"`{path}.type`: must be one of {', '.join(FIELDS)}"
            raise Refused(said, f"{path}.type", "unsupported_value")
        kept = {name: given[name] for name in FIELDS[kind] if given.get(name) is not None}
        if kind == "function_call":
            kept = {"call_id": new_id("call"), "arguments": "{}", **kept}
        if isinstance(kept.get("content"), str):
            text = "output_text" if kept.get("role") == "assistant" else "input_text"
            kept["content"] = [{"type": text, "text": kept["content"]}]
        if kept.get("role") == "developer":
            kept["role"] = "system"
        own = self._own_id(given.get("id"), path)
        item = {"id": own, "object": "realtime.item", "type": kind, "status": "completed", **kept}
        try:
            Conversation(calls=self._calls()).add_item(path, item)
        except Refused as refused:
            if refused.error.param == "input":  # an output without its call
                raise Refused(str(refused), f"{path}.call_id", "invalid_tool_call_id") from refused
            raise
        return item

    def read_input(self, given: Any, path: str) -> list[Item]:
        """Return the items of a response's own input, none of which is kept. Raises Refused."""
        if not isinstance(given, list):
            raise Refused(f"`{path}`: must be a list of items", path, "invalid_type")
        read = Items(Room(0), None)
        for place, one in enumerate(given):
            at = f"{path}[{place}]"
            if isinstance(one, dict) and one.get("type") == REFERENCE:
                item = self.find(one.get("id"), f"{at}.id")
            else:
                item = read.read(one, at)
            read.append(item)
        return list(read)

    def insert(self, item: Item, after: Any) -> str | None:
        """Add a client's item after another one, at the end if that is None.

        Returns the id of the item before it. Raises Refused.
        """
        size = _size(item)
        if not self._room.fits(self._client, size):
            raise overloaded("the conversations here hold too much; delete items")
        place = len(self._items)
        if after == ROOT:
            place = 0
        elif after is not None:
            place = self._items.index(self.find(after, "previous_item_id")) + 1
        return self._put(place, item, size)

    def find(self, own: Any, param: str) -> Item:
        """Return an item by its id. Raises Refused."""
        found = next((item for item in self._items if item["id"] == own), None)
        if found is None or found["type"] == "reasoning":
            named = str(own)[:MAX_ID]
            raise Refused(f"`{param}`: no item has the id `{named}`", param, "item_not_found")
        return found

    def remove(self, own: Any) -> None:
        """Remove an item. Raises Refused if there is none."""
        item = self.find(own, "item_id")
        self._items.remove(item)
        self._room.add(self._client, -self._sizes.pop(item["id"]))

    # Items of the model.

    def append(self, item: Item) -> str | None:
        """Add an item at the end; return the id of the one before it."""
        return self._put(len(self._items), item, _size(item))

    def replace(self, item: Item) -> tuple[bool, str | None]:
        """Put an item in the place of one with its id.

        Returns whether there is one, and the id of the item before it.
        """
        for place, one in enumerate(self._items):
            if one["id"] == item["id"]:
                size = _size(item)
                self._room.add(self._client, size - self._sizes[item["id"]])
                self._sizes[item["id"]] = size
                self._items[place] = item
                return True, self._before(place)
        return False, None

    # All of them.

    def __iter__(self) -> Iterator[Item]:
        """Return the items in order."""
        return iter(self._items)

    def close(self) -> None:
        """Forget all items."""
        self._room.add(self._client, -sum(self._sizes.values()))
        self._items.clear()
        self._sizes.clear()

    def _put(self, place: int, item: Item, size: int) -> str | None:
        self._items.insert(place, item)
        self._sizes[item["id"]] = size
        self._room.add(self._client, size)
        return self._before(place)

    def _before(self, place: int) -> str | None:
        """Return the id of the item before a place, of those that the client knows."""
        shown = (one["id"] for one in reversed(self._items[:place]) if one["type"] != "reasoning")
        return next(shown, None)

    def _calls(self) -> set[str]:
        return {item["call_id"] for item in self._items if item["type"] == "function_call"}

    def _own_id(self, given: Any, path: str) -> str:
        if given is None:
            return new_id("item")
        at = f"{path}.id"
        if not isinstance(given, str) or not 1 <= len(given) <= MAX_ID or given == ROOT:
            raise Refused(f"`{at}`: must have 1 to {MAX_ID} characters", at, "invalid_value")
        if given in self._sizes:
            raise Refused(f"`{at}`: another item has this id", at, "item_already_exists")
        return given


def _size(item: Any) -> int:
    return ITEM_BYTES + len(json_text.encode(item))
