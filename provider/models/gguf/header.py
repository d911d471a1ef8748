"""Reads the header of a GGUF file: its metadata, and where and how each tensor is stored.

A header may be damaged or hostile, so nothing in it makes more be read than there is.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

__all__ = ["BLOCKS", "TYPES", "GGUFError", "Header", "Tensor", "is_gguf", "read_header"]

MAGIC = b"GGUF"
VERSIONS = (2, 3)  # version 1 counted in 32 bits, and is not found any more
ALIGNMENT = 32  # bytes, unless the metadata says otherwise
MAX_DIMENSIONS = 4
MAX_HEADER = 64 << 20  # bytes; the largest vocabularies take 20 MiB

# The name of each tensor type by its number.
TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 9: "Q8_1",
    10: "Q2_K", 11: "Q3_K", 12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K", 16: "IQ2_XXS",
    17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S",
    23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 29: "IQ1_M", 30: "BF16",
    34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4",
}  # fmt: skip
# Values in a block, and its bytes, of each type that can be loaded.
BLOCKS = {
    "F32": (1, 4), "F16": (1, 2), "BF16": (1, 2),
    "Q4_0": (32, 18), "Q4_1": (32, 20), "Q5_0": (32, 22), "Q5_1": (32, 24), "Q8_0": (32, 34),
    "Q4_K": (256, 144), "Q5_K": (256, 176), "Q6_K": (256, 210),
}  # fmt: skip

STRING, ARRAY = 8, 9
LENGTH = struct.Struct("<Q")
# The numbers and truth values of metadata, by the number of their type.
SCALARS = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"
}  # fmt: skip


class GGUFError(ValueError):
    """A GGUF file that is damaged, or that holds what can't be loaded; the message says what."""


@dataclass(frozen=True)
class Tensor:
    """One tensor: `shape` is as mlx has it, the reverse of the file's; `begin` is in bytes."""

    name: str
    type: str
    shape: tuple[int, ...]
    begin: int
    nbytes: int


@dataclass(frozen=True)
class Header:
    """What a file says about itself: metadata by key, and tensors by name."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, Tensor]

    @property
    def architecture(self) -> str:
        """The architecture, as llama.cpp calls it."""
        return str(self.metadata["general.architecture"])

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value of the architecture's own, such as `block_count`."""
        return self.metadata.get(f"{self.architecture}.{key}", default)

    def need(self, key: str) -> Any:
        """Return a value of the architecture's own. Raises GGUFError if there is none."""
        value = self.get(key)
        if value is None:
            raise GGUFError(f"its metadata has no `{self.architecture}.{key}`")
        return value


def is_gguf(path: Path) -> bool:
    """Return whether a file begins as a GGUF file does."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def read_header(path: Path) -> Header:
    """Return a file's header. Raises GGUFError, OSError."""
    with path.open("rb") as file:
        reader = _Reader(file.read(MAX_HEADER))
    try:
        return reader.header(path, path.stat().st_size)
    except struct.error as error:
        raise GGUFError("it ends within its header; is the download complete?") from error
    except (UnicodeDecodeError, MemoryError) as error:
        raise GGUFError("its header is damaged") from error


class _Reader:
    """Reads the values of a header in turn. Raises struct.error where the bytes end."""

    def __init__(self, data: bytes):
        self._data = data
        self._at = 0

    def header(self, path: Path, size: int) -> Header:
        if not self._data.startswith(MAGIC):
            raise GGUFError("it is not a GGUF file")
        self._at = len(MAGIC)
        version, tensors, values = self._unpack("IQQ")
        if version not in VERSIONS:
            raise GGUFError(f"its version is {version}; known are 2 and 3")
        metadata = dict(self._pair() for _ in range(values))
        if not isinstance(metadata.get("general.architecture"), str):
            raise GGUFError("its metadata has no `general.architecture`")
        placed = [self._placed() for _ in range(tensors)]
        alignment = metadata.get("general.alignment", ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1:
            raise GGUFError(f"its `general.alignment` is {alignment}")
        begin = -(-self._at // alignment) * alignment
        found = [_tensor(size, begin, *one) for one in placed]
        return Header(path, metadata, {tensor.name: tensor for tensor in found})

    def _pair(self) -> tuple[str, Any]:
        key = self._string()
        (kind,) = self._unpack("I")
        return key, self._value(kind)

    def _value(self, kind: int) -> Any:
        if kind in SCALARS:
            return self._unpack(SCALARS[kind])[0]
        if kind == STRING:
            return self._string()
        if kind != ARRAY:
            raise GGUFError(f"its metadata has a value of the unknown type {kind}")
        inner, count = self._unpack("IQ")
        if inner in SCALARS:
            return list(self._unpack(f"{min(count, len(self._data))}{SCALARS[inner]}"))
        if inner != STRING:
            raise GGUFError(f"its metadata has an array of the unknown type {inner}")
        return [self._string() for _ in range(count)]

    def _placed(self) -> tuple[str, tuple[int, ...], int, int]:
        """Return a tensor's name, shape, type and its place after the header."""
        name = self._string()
        (dimensions,) = self._unpack("I")
        if not 1 <= dimensions <= MAX_DIMENSIONS:
            raise GGUFError(f"its tensor `{name}` has {dimensions} dimensions")
        shape = self._unpack(f"{dimensions}Q")
        kind, offset = self._unpack("IQ")
        return name, tuple(reversed(shape)), kind, offset

    def _string(self) -> str:
        (length,) = LENGTH.unpack_from(self._data, self._at)
        begin = self._at + LENGTH.size
        self._at = begin + length
        if self._at > len(self._data):
            raise struct.error
        return self._data[begin : self._at].decode("utf-8")

    def _unpack(self, kinds: str) -> tuple[Any, ...]:
        kinds = f"<{kinds}"
        found = struct.unpack_from(kinds, self._data, self._at)
        self._at += struct.calcsize(kinds)
        return found


def _tensor(size: int, begin: int, name: str, shape: tuple[int, ...], kind: int, at: int) -> Tensor:
    """Return a tensor in a file of `size` bytes whose tensors begin at `begin`."""
    of = TYPES.get(kind, str(kind))
    if of not in BLOCKS:
        raise GGUFError(f"its tensor `{name}` is of the type {of}; known are {', '.join(BLOCKS)}")
    values, nbytes = BLOCKS[of]
    if shape[-1] % values or not all(shape):
        raise GGUFError(f"its tensor `{name}` of type {of} has the shape {shape}")
    tensor = Tensor(name, of, shape, begin + at, prod(shape) // values * nbytes)
    if tensor.begin + tensor.nbytes > size:
        raise GGUFError(f"it ends before its tensor `{name}` does; is the download complete?")
    return tensor
