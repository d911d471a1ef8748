"""What is done with KV caches, as plain data, so that other processes can do the same.

Caches have numbers, which the process that orders the operations gives them. A number is of the
caches of one sequence, or of those of several rows. Pure.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Sequence

import msgspec

__all__ = [
    "Copy",
    "Extract",
    "Forget",
    "Forward",
    "Gather",
    "Join",
    "Journal",
    "Keep",
    "Make",
    "Operation",
    "Trim",
    "decode",
    "encode",
]


class Make(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Make the empty caches of one sequence."""

    new: int


class Copy(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Copy the caches of one sequence."""

    caches: int
    new: int


class Trim(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Remove the last tokens of one sequence."""

    caches: int
    tokens: int


class Gather(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Make caches of several rows out of those of sequences: in slots, or in mlx-lm's classes."""

    sequences: list[int]
    new: int
    slots: bool


class Keep(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Keep these rows, in this order, and drop all others."""

    caches: int
    rows: list[int]


class Join(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Write the rows of `other` into these slots, or append them if there are none."""

    caches: int
    other: int
    slots: list[int]


class Extract(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Copy one row as the caches of one sequence."""

    caches: int
    row: int
    new: int


class Forget(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Free caches, which no later operation names."""

    caches: int


class Forward(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Make a forward pass of `width` tokens for each row, of which `counts` are real.

    `starts` are the tokens that each slot holds before. Both are empty for caches that don't count.
    """

    caches: int
    rows: int
    width: int
    starts: list[int]
    counts: list[int]


Operation = Make | Copy | Trim | Gather | Keep | Join | Extract | Forget | Forward

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Operation])


def encode(operations: Sequence[Operation]) -> bytes:
    """Return operations as bytes."""
    return _encoder.encode(operations)


def decode(data: bytes) -> list[Operation]:
    """Return the operations in bytes. Raises ValueError for bytes that are none."""
    return _decoder.decode(data)


class Journal:
    """The operations that have been done here, until they are taken to be told elsewhere.

    Any thread may add operations, and the garbage collector does; so `add` takes no lock.
    """

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._operations: deque[Operation] = deque()

    def number(self) -> int:
        """Return a number for new caches."""
        return next(self._numbers)

    def add(self, operation: Operation) -> None:
        """Append an operation."""
        self._operations.append(operation)

    def take(self) -> list[Operation]:
        """Remove and return all operations, in their order. One thread at a time may call it."""
        taken = []
        while self._operations:
            taken.append(self._operations.popleft())
        return taken
