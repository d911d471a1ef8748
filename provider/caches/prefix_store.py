"""KV caches on disk, for prompts that begin alike after a restart.

Rule 1: a file is data. Its header is read and checked first: the format, the model that it belongs
to, the kinds of caches, each from a short list; only then are its arrays read.
Rule 2: a file that is cut short, changed or of somebody else's is left out with a warning; it is
never a reason to fail.
Rule 3: at most `max_bytes` in the folder, over all models; the least recently used goes first.
Rule 4: only the MLX thread calls it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
from array import array
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from provider.caches.kinds import Trimming, can_be_stored, kind_of, stored_kind
from provider.runtime.mlx_lm import (
    load_prompt_cache,
    save_prompt_cache,
)

__all__ = ["PrefixStore", "Stored"]

FORMAT = "mlx-gateway-prefix-1"
MOST_HEADER = 64 << 20  # bytes; a longer one is no header of ours
WIDTH = array("I").itemsize

log = logging.getLogger(__name__)


class _ForeignError(Exception):
    """A file that is not one of ours, and why."""


@dataclass(frozen=True, eq=False)
class Stored:
    """A file of the store."""

    path: Path
    tokens: bytes  # as 32-bit numbers
    nbytes: int
    trimmable: bool

    @property
    def length(self) -> int:
        """How many tokens its caches hold."""
        return len(self.tokens) // WIDTH


class PrefixStore:
    """The folder, and which of its files belong to one model."""

    def __init__(self, folder: Path, max_bytes: int, model: str):
        self.max_bytes = max_bytes
        self._model = model
        self._root = folder
        self._folder = folder / hashlib.sha256(model.encode()).hexdigest()[:16]
        self._entries: dict[Path, Stored] = {}
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._entries = {entry.path: entry for entry in self._scan()}
            self._make_room(0)
        except OSError as error:
            log.warning("`%s` can't keep what was read: %s", folder, error)
            self.max_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Stored]:
        return iter(list(self._entries.values()))

    def save(self, tokens: bytes, caches: Sequence[Any]) -> None:
        """Write the caches that hold `tokens`; what can't be written is left out."""
        if not can_be_stored(caches):
            return
        path = self._folder / f"{hashlib.sha256(tokens).hexdigest()[:32]}.safetensors"
        nbytes = sum(int(cache.nbytes) for cache in caches)
        if path in self._entries or nbytes > self.max_bytes:
            return
        partial = path.with_name(f".{os.getpid()}.{path.name}")
        metadata = {
            "format": FORMAT,
            "model": self._model,
            "tokens": base64.b64encode(tokens).decode(),
        }
        try:
            self._make_room(nbytes)
            save_prompt_cache(str(partial), list(caches), metadata)
            partial.replace(path)
            entry = self._read_header(path)
        except (OSError, RuntimeError, ValueError, _ForeignError) as error:
            log.warning("what was read can't be kept in `%s`: %s", self._folder, error)
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            return
        self._drop_covered_by(entry)
        self._entries[path] = entry

    def load(self, entry: Stored) -> list[Any] | None:
        """Return a file's caches, not evaluated; None, with a warning, if it is damaged."""
        try:
            self._read_header(entry.path)
            caches = load_prompt_cache(str(entry.path))
            _check_lengths(caches, entry.length)
            os.utime(entry.path)  # used now
        except Exception as error:  # noqa: BLE001 - a damaged file may fail in any way
            log.warning("`%s` is left out: %s", entry.path, error)
            self._entries.pop(entry.path, None)
            return None
        return list(caches)

    def _scan(self) -> Iterator[Stored]:
        for path in sorted(self._folder.glob("*.safetensors")):
            try:
                yield self._read_header(path)
            except (OSError, ValueError, KeyError, TypeError, _ForeignError) as error:
                log.warning("`%s` is left out: %s", path, error)

    def _read_header(self, path: Path) -> Stored:
        """Check what a file says it is, without reading its arrays."""
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length <= min(MOST_HEADER, size - 8):
                raise _ForeignError("it is no safetensors file, or cut short")
            header = json.loads(file.read(length))
        metadata = header.pop("__metadata__", {})
        ends = [tensor["data_offsets"][1] for tensor in header.values()]
        if 8 + length + max(ends, default=0) != size:
            raise _ForeignError("it is cut short")
        # As mlx-lm writes it: 0 is our own metadata, 1 the kinds of caches.
        if metadata.get("0.format") != FORMAT:
            raise _ForeignError("it is of another format")
        if metadata.get("0.model") != self._model:
            raise _ForeignError("it belongs to another model")
        names = {name for key, name in metadata.items() if key.startswith("1.")}
        kinds = [kind for name in names if (kind := stored_kind(name)) is not None]
        if not kinds or len(kinds) < len(names):
            raise _ForeignError(f"it holds caches of unknown kinds: {sorted(names)}")
        tokens = base64.b64decode(metadata["0.tokens"], validate=True)
        trimmable = all(kind.trimming is Trimming.ALWAYS for kind in kinds)
        return Stored(path, tokens, size, trimmable)

    def _drop_covered_by(self, entry: Stored) -> None:
        if not entry.trimmable:
            return
        for other in self:
            if other.path != entry.path and entry.tokens.startswith(other.tokens):
                self._remove(other.path)

    def _make_room(self, nbytes: int) -> None:
        """Remove the least recently used files, of any model, until `nbytes` more fit."""
        files = [(path, path.stat()) for path in self._root.glob("*/*.safetensors")]
        total = sum(stat.st_size for _, stat in files) + nbytes
        for path, stat in sorted(files, key=lambda file: file[1].st_mtime_ns):
            if total <= self.max_bytes:
                return
            self._remove(path)
            total -= stat.st_size

    def _remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._entries.pop(path, None)


def _check_lengths(caches: Sequence[Any], tokens: int) -> None:
    for cache in caches:
        if kind_of(cache).counts and cache.offset != tokens:
            raise _ForeignError("its caches hold another number of tokens")
