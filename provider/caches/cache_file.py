"""Writes KV caches in the file format of mlx-lm's `save_prompt_cache` and `load_prompt_cache`.

Writing has two steps. A `Snapshot` is made on the MLX thread, mostly without copying arrays; then
another thread writes it, without calling MLX.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from provider.runtime.mlx import mx, tree_flatten

__all__ = ["Snapshot", "read_header"]

MAX_HEADER_BYTES = 64 << 20  # larger than any header that this package writes
LENGTH_BYTES = 8  # size of the field that holds the header's length
DTYPES = {
    mx.bool_: "BOOL",
    mx.uint8: "U8",
    mx.uint16: "U16",
    mx.uint32: "U32",
    mx.uint64: "U64",
    mx.int8: "I8",
    mx.int16: "I16",
    mx.int32: "I32",
    mx.int64: "I64",
    mx.float16: "F16",
    mx.bfloat16: "BF16",
    mx.float32: "F32",
}


class Snapshot:
    """The present contents of some caches, and `metadata`, as the bytes of a file.

    It must be made on the MLX thread, because it evaluates the arrays. Raises ValueError for a
    cache state that can't be written.
    """

    def __init__(self, caches: Sequence[Any], metadata: Mapping[str, str]):
        arrays: dict[str, Any] = {}
        scalars: list[Any] = [""]  # never empty, because mlx-lm's reader drops an empty list
        for place, value in tree_flatten([cache.state for cache in caches]):
            arrays[place], scalar = _as_array(value)
            if scalar:
                scalars.append((place, scalar))
        described = [dict(metadata), [type(cache).__name__ for cache in caches], scalars]
        # This copies only arrays that are not contiguous.
        self._arrays = [mx.contiguous(array) for array in arrays.values()]
        self._bytes = [array.reshape(-1).view(mx.uint8) for array in self._arrays]
        mx.eval(self._arrays, self._bytes)
        self._header = _header(arrays, dict(tree_flatten(described)))
        self._buffers = [memoryview(array) for array in self._bytes]  # type: ignore[arg-type]
        self.nbytes = len(self._header) + sum(buffer.nbytes for buffer in self._buffers)

    def write(self, path: Path) -> None:
        """Write the file. May be called from any thread. Raises OSError."""
        with path.open("wb") as file:
            file.write(self._header)
            for buffer in self._buffers:
                file.write(buffer)


def read_header(path: Path) -> dict[str, str]:
    """Return a cache file's metadata, without reading its arrays.

    Raises OSError; ValueError for a truncated file or one in another format; KeyError or TypeError
    for a header with unexpected contents.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
        if not 0 < length <= min(MAX_HEADER_BYTES, size - LENGTH_BYTES):
            raise ValueError("it is not a safetensors file, or is truncated")
        header = json.loads(file.read(length))
    metadata: dict[str, str] = header.pop("__metadata__", {})
    ends = [tensor["data_offsets"][1] for tensor in header.values()]
    if LENGTH_BYTES + length + max(ends, default=0) != size:
        raise ValueError("it is truncated")
    return metadata


def _as_array(value: Any) -> tuple[Any, str]:
    """Return part of a cache state as an array, and mlx-lm's name for its type if not an array."""
    match value:
        case mx.array():
            return value, ""
        case bool() | int() | float():
            return mx.array(value), "scalar"
        case str():
            return mx.array([ord(character) for character in value]), "string"
        case None:
            return mx.array([]), "none"
        case _:
            raise ValueError(f"a state that can't be written: {type(value).__name__}")


def _header(arrays: Mapping[str, Any], metadata: Mapping[str, str]) -> bytes:
    described: dict[str, Any] = {"__metadata__": metadata}
    begin = 0
    for place, array in arrays.items():
        end = begin + array.nbytes
        described[place] = {
            "dtype": DTYPES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [begin, end],
        }
        begin = end
    text = json.dumps(described, separators=(",", ":")).encode()
    text += b" " * (-len(text) % LENGTH_BYTES)  # aligns the beginning of the arrays
    return len(text).to_bytes(LENGTH_BYTES, "little") + text
