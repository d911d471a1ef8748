"""KV caches in the file format of mlx-lm's `save_prompt_cache` and `load_prompt_cache`.

Rule 1: only the MLX thread calls MLX, and only other threads wait for the disk. To write, the MLX
thread makes a `Snapshot` without copying arrays, and another thread writes it. To read, another
thread reads the bytes of a file, and the MLX thread makes arrays of them with `caches_in`.
Rule 2: a file has two digests, of its header and of its body (the arrays), so that damage anywhere
is found. `read_header` checks the header before it parses any of it, `check_body` the body.
"""

from __future__ import annotations

import hashlib
import io
import json
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from provider.runtime.mlx import mx, tree_flatten
from provider.runtime.mlx_lm import load_prompt_cache

__all__ = ["Snapshot", "caches_in", "check_body", "read_header"]

# A header has about six bytes for each token, so this suffices for 2.5 million tokens. Parsed, JSON
# may take twenty times its size in memory.
MAX_HEADER_BYTES = 16 << 20
LENGTH_BYTES = 8  # size of the field that holds the header's length
PIECE = 4 << 20  # bytes of the arrays that are hashed and written at once
NO_DIGEST = "0" * 64  # stands for a SHA-256 that is not known yet
# The beginning of every header, up to its own digest. mlx-lm's names for metadata begin with `0.`.
BEGINNING = b'{"__metadata__":{"0.header_digest":"'
UNSIGNED = {1: mx.uint8, 2: mx.uint16, 4: mx.uint32, 8: mx.uint64}  # by size in bytes
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
        digests = {"header_digest": NO_DIGEST, "body_digest": NO_DIGEST}
        described = [
            {**digests, **metadata},
            [type(cache).__name__ for cache in caches],
            scalars,
        ]
        # numpy has no bfloat16. Views share the memory of their arrays, whatever their strides.
        views = [array.view(UNSIGNED[array.itemsize]) for array in arrays.values()]
        mx.eval(views)
        self._header = _header(arrays, dict(tree_flatten(described)))
        self._buffers = [np.asarray(memoryview(view)) for view in views]
        self.nbytes = len(self._header) + sum(buffer.nbytes for buffer in self._buffers)
        if len(self._header) > MAX_HEADER_BYTES:
            raise ValueError("the caches hold more tokens than a header may list")

    def write(self, path: Path) -> None:
        """Write the file. May be called from any thread. Raises OSError."""
        body = hashlib.sha256()
        with path.open("wb") as file:
            file.write(self._header)
            for buffer in self._buffers:
                for piece in _pieces(buffer):
                    body.update(piece)
                    file.write(piece)
            file.seek(0)
            file.write(_with_digests(self._header, body.hexdigest()))


def read_header(path: Path) -> dict[str, str]:
    """Return a cache file's metadata after checking its digest, without reading its arrays.

    Raises OSError; ValueError for a damaged file or one in another format. A forged file may raise
    anything.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for a writer
        raise ValueError("it is not a file")
    size = status.st_size
    with path.open("rb") as file:
        length = _header_length(file.read(LENGTH_BYTES), size)
        text = file.read(length)
    at = len(BEGINNING)
    digest = text[at : at + len(NO_DIGEST)]
    if not text.startswith(BEGINNING) or _header_digest(text) != digest:
        raise ValueError("its header is damaged or of another format")
    header = json.loads(text)
    metadata: dict[str, str] = header.pop("__metadata__", {})
    ends = [tensor["data_offsets"][1] for tensor in header.values()]
    if LENGTH_BYTES + length + max(ends, default=0) != size:
        raise ValueError("it is truncated")
    return metadata


def check_body(data: bytes, digest: str) -> None:
    """Raise ValueError if `digest` is not that of the arrays in a file's bytes."""
    begin = LENGTH_BYTES + _header_length(data[:LENGTH_BYTES], len(data))
    if hashlib.sha256(memoryview(data)[begin:]).hexdigest() != digest:
        raise ValueError("its arrays are damaged")


class _File(io.BytesIO):
    """A file in memory; MLX infers the format from its name."""

    name = "caches.safetensors"


def caches_in(data: bytes) -> list[Any]:
    """Return the caches in a file's bytes, evaluated; to be called on the MLX thread.

    The header, which names the classes, and the body must have been checked.
    """
    return list(load_prompt_cache(_File(data)))


def _header_length(field: bytes, size: int) -> int:
    length = int.from_bytes(field, "little")
    if not 0 < length <= min(MAX_HEADER_BYTES, size - LENGTH_BYTES):
        raise ValueError("it is not a safetensors file, or is truncated")
    return length


def _pieces(buffer: np.ndarray[Any, Any]) -> Iterator[memoryview]:
    """Yield an array's elements in order, in contiguous pieces, copied only if they were not."""
    if buffer.nbytes <= PIECE or not buffer.ndim:
        yield np.ascontiguousarray(buffer).reshape(-1).data
        return
    rows = max(1, PIECE * len(buffer) // buffer.nbytes)
    for row in range(0, len(buffer), rows):
        yield from _pieces(buffer[row] if rows == 1 else buffer[row : row + rows])


def _as_array(value: Any) -> tuple[Any, str]:
    """Return part of a cache's state as an array, and the name of its type in mlx-lm's format.

    The name is "" for an array. Raises ValueError for a type that the format does not have.
    """
    match value:
        case mx.array() if value.dtype in DTYPES:
            return value, ""
        case bool() | int() | float():
            return mx.array(value), "scalar"
        case str():
            return mx.array([ord(character) for character in value]), "string"
        case None:
            return mx.array([]), "none"
        case _:
            kind = getattr(value, "dtype", type(value).__name__)
            raise ValueError(f"a state that can't be written: {kind}")


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


def _with_digests(header: bytes, body_digest: str) -> bytes:
    """Return a header with both digests put in place of its two placeholders.

    `header` begins with its length, and so does the result; the length stays the same.
    """
    text = header[LENGTH_BYTES:]
    at = text.index(NO_DIGEST.encode(), len(BEGINNING) + len(NO_DIGEST))
    text = text[:at] + body_digest.encode() + text[at + len(NO_DIGEST) :]
    at = len(BEGINNING)
    text = text[:at] + _header_digest(text) + text[at + len(NO_DIGEST) :]
    return header[:LENGTH_BYTES] + text


def _header_digest(text: bytes) -> bytes:
    """Return the hexadecimal digest of a header without the place where this digest is kept."""
    digest = hashlib.sha256(text[: len(BEGINNING)])
    digest.update(text[len(BEGINNING) + len(NO_DIGEST) :])
    return digest.hexdigest().encode()
