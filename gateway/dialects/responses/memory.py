"""The conversations that clients may continue by `previous_response_id`.

Rule 1: a response that is stored is found on every connection of its owner, any other only on its
own, until that ends. All are forgotten when nobody has used them for a while.
Rule 2: a response holds the messages of its own turn alone, and its predecessor. So a conversation
is held once, however often it is continued; a predecessor's messages stay while a successor is
kept.
Rule 3: of a conversation, as much of its end can be continued as a client may send in one frame.
Rule 4: when conversations hold too much, the client that holds the most here loses the response
that it has not used for the longest time.

Pure: time is an argument.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from gateway.dialects import json_text
from gateway.dialects.kept_bytes import KeptBytes
from gateway.dialects.values import in_data

__all__ = ["Kept", "Memory", "Place"]

KEPT_BYTES = 1024  # about what a response takes beside its messages and items
ITEM_BYTES = 256  # about what an item takes beside its content
MAX_BYTES = 8 << 20  # size of the part of a conversation that can be continued


@dataclass(frozen=True)
class Place:
    """Where a response is asked for: a connection, its owner's token, the name of its client."""

    connection: object
    owner: str | None = None
    client: str | None = None


@dataclass(eq=False)
class Kept:
    """One response that may be continued."""

    id: str
    place: Place
    stream_id: str | None
    stored: bool
    parent: Kept | None
    packed: bytes  # its own messages in JSON
    items: Mapping[str, bytes]  # those of its output in JSON, by their ids
    values: int  # keys and values in them
    used_at: float  # seconds
    users: int = 0  # the table below, and its successors

    @property
    def size(self) -> int:
        """Bytes that it holds, without its predecessors."""
        items = sum(ITEM_BYTES + len(item) for item in self.items.values())
        return KEPT_BYTES + len(self.packed) + items

    def messages(self, most_values: int) -> tuple[list[dict[str, Any]], bool]:
        """Return the conversation up to its end, and whether it is whole.

        Of a long one, it is the last turns that have MAX_BYTES and `most_values` together, from
        their first question on.
        """
        line: list[Kept] = []
        one: Kept | None = self
        size = values = 0
        while one is not None:
            size += len(one.packed)
            values += one.values
            if line and (size > MAX_BYTES or values > most_values):
                break
            line.append(one)
            one = one.parent
        told = [message for one in reversed(line) for message in msgspec.json.decode(one.packed)]
        if one is None:
            return told, True
        begin = next((n for n, one in enumerate(told) if one["role"] == "user"), len(told))
        return told[begin:], False


class Memory:
    """The responses that may be continued, of all connections."""

    def __init__(self, conversations: KeptBytes, seconds: float):
        self._conversations = conversations
        conversations.on_excess(self._forget_one)
        self._seconds = seconds
        self._kept: OrderedDict[str, Kept] = OrderedDict()  # the least recently used first
        self._by_client: dict[str | None, OrderedDict[str, Kept]] = {}
        self._bytes: dict[str | None, int] = {}
        self._by_item: dict[str, Kept] = {}  # by the ids of the items of their outputs
        self._of_connection: dict[object, set[str]] = {}  # those that are not stored
        self.held_bytes = 0

    def __len__(self) -> int:
        """Return the number of responses that may be continued."""
        return len(self._kept)

    def keep(
        self,
        own: str,
        messages: Sequence[dict[str, Any]],
        items: Mapping[str, dict[str, Any]],
        *,
        parent: Kept | None,
        place: Place,
        stream_id: str | None,
        stored: bool,
        now: float,
    ) -> None:
        """Keep a response that has ended.

        `messages` are its input and its output, `items` those of its output by their ids.
        """
        said = list(messages)
        packed, values = json_text.encode(said), in_data(said)
        apart = {name: json_text.encode(item) for name, item in items.items()}
        kept = Kept(own, place, stream_id, stored, parent, packed, apart, values, now)
        self._by_item.update(dict.fromkeys(apart, kept))
        self._use(kept)
        self._kept[own] = kept
        self._by_client.setdefault(place.client, OrderedDict())[own] = kept
        if not stored:
            self._of_connection.setdefault(place.connection, set()).add(own)
        self._expire(now)
        self._conversations.reduce()

    def find(self, own: str, place: Place, now: float) -> Kept | None:
        """Return a response that may be continued there, None if there is none."""
        self._expire(now)
        kept = self._kept.get(own)
        if kept is None or kept.place.owner != place.owner:
            return None
        if not kept.stored and kept.place.connection is not place.connection:
            return None
        kept.used_at = now
        self._kept.move_to_end(own)
        self._by_client[kept.place.client].move_to_end(own)
        return kept

    def find_item(self, own: str, place: Place, now: float) -> dict[str, Any] | None:
        """Return an item of the output of a response that may be continued there."""
        kept = self._by_item.get(own)
        if kept is None or self.find(kept.id, place, now) is None:
            return None
        item: dict[str, Any] = msgspec.json.decode(kept.items[own])
        return item

    def forget(self, kept: Kept) -> None:
        """Let a response no longer be continued; what continues it already is not changed."""
        if self._kept.pop(kept.id, None) is None:
            return
        for own in kept.items:
            del self._by_item[own]
        of_client = self._by_client[kept.place.client]
        del of_client[kept.id]
        if not of_client:
            del self._by_client[kept.place.client]
        if not kept.stored:
            self._of_connection[kept.place.connection].discard(kept.id)
        self._release(kept)

    def leave(self, connection: object) -> None:
        """Forget what is not stored of a connection that has ended."""
        for own in list(self._of_connection.get(connection, ())):
            self.forget(self._kept[own])
        self._of_connection.pop(connection, None)

    def _expire(self, now: float) -> None:
        while self._kept:
            oldest = next(iter(self._kept.values()))
            if oldest.used_at + self._seconds > now:
                break
            self.forget(oldest)

    def _forget_one(self) -> bool:
        if not self._kept:
            return False
        most = max(self._by_client, key=lambda client: self._bytes.get(client, 0))
        self.forget(next(iter(self._by_client[most].values())))
        return True

    def _use(self, kept: Kept | None) -> None:
        """Note one use more of a response; the first is one of its predecessor too."""
        while kept is not None:
            kept.users += 1
            if kept.users > 1:
                return
            self._hold(kept, 1)
            kept = kept.parent

    def _release(self, kept: Kept | None) -> None:
        """Give up one use of a response, and those of its predecessors that nothing else uses."""
        while kept is not None:
            kept.users -= 1
            if kept.users:
                return
            self._hold(kept, -1)
            kept = kept.parent

    def _hold(self, kept: Kept, sign: int) -> None:
        client, size = kept.place.client, sign * kept.size
        self.held_bytes += size
        self._conversations.keep(size)
        left = self._bytes.get(client, 0) + size
        if left:
            self._bytes[client] = left
        else:
            del self._bytes[client]
