"""The conversation of a connection: its items in order, and the bytes that they hold.

Rule 1: an item is checked when it comes, so that what can't be shown to a model is never kept.
Rule 2: what the conversations of all connections hold is bounded, and so is each client's part, and
the number of parts of a conversation. An item of a client is refused beyond that, and so is a
response; what one that runs still writes is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from gateway.dialects import json_text
from gateway.dialects.kept_bytes import KeptBytes
from gateway.dialects.openai.answer import new_id
from gateway.dialects.openai.conversation import REFERENCE, Conversation
from gateway.dialects.openai.errors import Refused, overloaded, quoted
from gateway.dialects.realtime.server_events import Item

__all__ = ["ROOT", "Items"]

ROOT = "root"  # names the place before all items
MAX_ID = 64  # characters
ITEM_BYTES = 512  # about what an item takes beside its content
# Items and parts of their contents; each takes some microseconds when a response is asked for.
MAX_PARTS = 4096
# What is kept of an item beside its id, by its type.
FIELDS = {
    "message": ("role", "content"),
    "function_call": ("call_id", "name", "arguments"),
    "function_call_output": ("call_id", "output"),
}


class Items:
    """The items of one conversation; those of type `reasoning` are for the model alone."""

    def __init__(self, kept: KeptBytes, client: str | None):
        self.id = new_id("conv")
        self._kept, self._client = kept, client
        self._order: list[str] = []  # the ids of items
        self._by_id: dict[str, Item] = {}
        self._sizes: dict[str, int] = {}
        self._calls: Counter[str] = Counter()  # the ids of calls
        self._parts = 0

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
        call = kept.get("call_id")
        known = [call] if isinstance(call, str) and call in self._calls else []
        try:
            Conversation(calls=known).add_item(path, item)
        except Refused as refused:
            if refused.error.param == "input":  # an output without its call
                raise Refused(str(refused), f"{path}.call_id", "invalid_tool_call_id") from refused
            raise
        return item

    def read_input(self, given: Any, path: str) -> list[Item]:
        """Return the items of a response's own input, none of which is kept. Raises Refused."""
        if not isinstance(given, list):
            raise Refused(f"`{path}`: must be a list of items", path, "invalid_type")
        read = Items(KeptBytes(0), None)
        for place, one in enumerate(given):
            at = f"{path}[{place}]"
            if isinstance(one, dict) and one.get("type") == REFERENCE:
                item = self.find(one.get("id"), f"{at}.id")
                read.check_new(item["id"], f"{at}.id")
            else:
                item = read.read(one, at)
            read._put(place, item, 0)
        return list(read)

    def insert(self, item: Item, after: Any) -> str | None:
        """Add a client's item after another one, at the end if that is None.

        Returns the id of the item before it. Raises Refused.
        """
        size = _size(item)
        self.check_room(_parts(item), size)
        place = len(self._order)
        if after == ROOT:
            place = 0
        elif after is not None:
            place = self._order.index(self.find(after, "previous_item_id")["id"]) + 1
        return self._put(place, item, size)

    def check_room(self, parts: int = 1, size: int = ITEM_BYTES) -> None:
        """Raise Refused if there is no room for so many parts, or for so many bytes."""
        if self._parts + parts > MAX_PARTS:
            raise overloaded("this conversation has too many items, or parts of them; delete some")
        if not self._kept.fits(self._client, size):
            raise overloaded("the conversations here hold too much; delete items")

    def find(self, own: Any, param: str) -> Item:
        """Return an item by its id. Raises Refused."""
        found = self._by_id.get(own) if isinstance(own, str) else None
        if found is None or found["type"] == "reasoning":
            said = f"`{param}`: no item has the id `{quoted(own, MAX_ID)}`"
            raise Refused(said, param, "item_not_found")
        return found

    def remove(self, own: Any) -> None:
        """Remove an item, and the reasoning that led to it. Raises Refused if there is none."""
        place = self._order.index(self.find(own, "item_id")["id"])
        self._take(place)
        while place and self._by_id[self._order[place - 1]]["type"] == "reasoning":
            place -= 1
            self._take(place)

    def _take(self, place: int) -> None:
        own = self._order.pop(place)
        self._count(self._by_id.pop(own), -1)
        self._kept.need(self._client, -self._sizes.pop(own))

    # Items of the model.

    def append(self, item: Item) -> str | None:
        """Add an item at the end; return the id of the one before it."""
        return self._put(len(self._order), item, _size(item))

    def replace(self, item: Item) -> tuple[bool, str | None]:
        """Put an item in the place of one with its id.

        Returns whether there is one, and the id of the item before it.
        """
        own = item["id"]
        earlier = self._by_id.get(own)
        if earlier is None:
            return False, None
        size = _size(item)
        self._kept.need(self._client, size - self._sizes[own])
        self._sizes[own], self._by_id[own] = size, item
        self._count(earlier, -1)
        self._count(item, 1)
        return True, self._before(self._order.index(earlier["id"]))

    # All of them.

    def __iter__(self) -> Iterator[Item]:
        """Return the items in order."""
        return iter([self._by_id[own] for own in self._order])

    def close(self) -> None:
        """Forget all items."""
        self._kept.need(self._client, -sum(self._sizes.values()))
        self._kept = KeptBytes(0)  # what a model writes late counts nowhere
        self._order.clear()
        self._by_id.clear()
        self._sizes.clear()
        self._calls.clear()
        self._parts = 0

    def _put(self, place: int, item: Item, size: int) -> str | None:
        self._order.insert(place, item["id"])
        self._by_id[item["id"]] = item
        self._sizes[item["id"]] = size
        self._count(item, 1)
        self._kept.need(self._client, size)
        self._kept.reduce()
        return self._before(place)

    def _count(self, item: Item, sign: int) -> None:
        self._parts += sign * _parts(item)
        if item["type"] == "function_call":
            call = item["call_id"]
            self._calls[call] += sign
            if not self._calls[call]:
                del self._calls[call]

    def _before(self, place: int) -> str | None:
        """Return the id of the item before a place, of those that the client knows."""
        earlier = (self._order[n] for n in range(place - 1, -1, -1))
        return next((own for own in earlier if self._by_id[own]["type"] != "reasoning"), None)

    def _own_id(self, given: Any, path: str) -> str:
        if given is None:
            return new_id("item")
        at = f"{path}.id"
        if not isinstance(given, str) or not 1 <= len(given) <= MAX_ID or given == ROOT:
            raise Refused(f"`{at}`: must have 1 to {MAX_ID} characters", at, "invalid_value")
        self.check_new(given, at)
        return given

    def check_new(self, own: str, path: str) -> None:
        """Raise Refused if an item has this id."""
        if own in self._by_id:
            raise Refused(f"`{path}`: another item has this id", path, "item_already_exists")


def _parts(item: Item) -> int:
    content = item.get("content", item.get("output"))
    return 1 + (len(content) if isinstance(content, list) else 0)


def _size(item: Any) -> int:
    return ITEM_BYTES + len(json_text.encode(item))
