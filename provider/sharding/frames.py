"""What the processes of one model tell each other beside the collectives of mlx. Pure.

The first process tells the others what to do (`FromFirst`), in order; they tell it how they are
(`FromOther`).
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from provider.caches.operations import Operation

__all__ = [
    "Do",
    "End",
    "Failed",
    "FromFirst",
    "FromOther",
    "Has",
    "Leave",
    "Load",
    "Unload",
    "difference",
    "encode",
    "from_first",
    "from_other",
]


class Load(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Load a part of the model, together with all others."""


class Unload(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Free the part of the model; no forward pass comes before the next `Load`."""


class Do(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Do this with the part of the model and its KV caches."""

    operations: list[Operation]


class End(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """End this process: the first one ends in order."""


class Has(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Say that a part can be loaded, and what must be the same everywhere, by its name."""

    facts: dict[str, str]


class Leave(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Say that a signal has asked this process to end, so that all end in order."""


class Failed(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Say that this process ends because of an error, and which."""

    reason: str


FromFirst = Load | Unload | Do | End
FromOther = Has | Leave | Failed

_encoder = msgspec.msgpack.Encoder()
_from_first: msgspec.msgpack.Decoder[FromFirst] = msgspec.msgpack.Decoder(FromFirst)
_from_other: msgspec.msgpack.Decoder[FromOther] = msgspec.msgpack.Decoder(FromOther)


def encode(frame: FromFirst | FromOther) -> bytes:
    """Return a frame as bytes."""
    return _encoder.encode(frame)


def from_first(data: bytes) -> FromFirst:
    """Return a frame of the first process. Raises ValueError for bytes that are none."""
    return _from_first.decode(data)


def from_other(data: bytes) -> FromOther:
    """Return a frame of another process. Raises ValueError for bytes that are none."""
    return _from_other.decode(data)


def difference(rank: int, theirs: Mapping[str, str], ours: Mapping[str, str]) -> str:
    """Return what the process of a rank has that rank 0 has not, "" if they have the same."""
    for name in [*ours, *theirs]:
        their, our = theirs.get(name, "none"), ours.get(name, "none")
        if their != our:
            return f"rank {rank} has {name} {their}, and rank 0 has {our}"
    return ""
