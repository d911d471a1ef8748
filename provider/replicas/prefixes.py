"""The prefixes of a conversation, by which replicas that have read them are found again.

Each prefix is a digest of everything up to it, so that two conversations have a prefix in common
exactly as far as they begin alike. Pure: no I/O.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from itertools import islice
from typing import NamedTuple

import msgspec

from gateway.protocol.frames import Generate

__all__ = ["MAX_PREFIXES", "Prefix", "prefixes_of"]

PIECE = 2048  # bytes of a message or a prompt that have a prefix of their own
MAX_PREFIXES = 256  # prefixes of one conversation, those of its first half megabyte


class Prefix(NamedTuple):
    """The beginning of a conversation, and the bytes of it that the model reads."""

    digest: bytes
    size: int


def prefixes_of(frame: Generate) -> tuple[Prefix, ...]:
    """Return the prefixes of a request's conversation, the shortest first."""
    variables = [frame.model, frame.enable_thinking, frame.chat_template_kwargs]
    digest = blake2b(msgspec.msgpack.encode(variables), digest_size=8).digest()
    found: list[Prefix] = []
    size = 0
    for piece in islice(_pieces(frame), MAX_PREFIXES):
        digest = blake2b(digest + piece, digest_size=8).digest()
        size += len(piece)
        found.append(Prefix(digest, size))
    return tuple(found)


def _pieces(frame: Generate) -> Iterator[bytes]:
    """Yield what the model reads in pieces, in the order in which it reads them."""
    if frame.system_prompt or frame.tools:
        yield msgspec.msgpack.encode([frame.system_prompt, frame.tools])
    for file in frame.files or ():
        yield from _cut(file.data)
    for message in frame.messages or ():
        yield from _cut(msgspec.msgpack.encode(message))
    if frame.prompt:
        yield from _cut(frame.prompt.encode("utf-8", "surrogatepass"))


def _cut(data: bytes) -> Iterator[bytes]:
    for begin in range(0, len(data), PIECE):
        yield data[begin : begin + PIECE]
