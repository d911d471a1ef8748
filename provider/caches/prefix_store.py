"""KV caches of prompt prefixes on disk, which are reused after a restart.

Rule 1: a file is only data. The store first checks its header: the digest, the format, the model,
and the cache classes, which must be known ones. Only then are the arrays read, and their digest is
checked before they are used.
Rule 2: a damaged or foreign file is a miss, with one warning, and is removed. One that can't be
opened is a miss too, and stays. Neither ever causes a failure.
Rule 3: the folder holds at most `max_bytes`, over all models. The least recently used file is
evicted first.
Rule 4: a folder that another user can write to is not used, and each model's own is private.
Rule 5: the MLX thread calls `save`, `read` and `load`. It never waits for the disk, because the
store has a thread that finds its files and then writes, whose queue is bounded, and another one
that reads.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import logging
import os
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from provider.caches.cache_file import Snapshot, caches_in, check_body, read_header
from provider.caches.kinds import Trimming, can_be_stored, kind_of, size_of, stored_kind
from provider.caches.prefix_index import WIDTH, PrefixIndexes
from provider.runtime.folders import make_private, refuse_others

__all__ = ["PrefixStore", "Stored"]

FORMAT = "mlx-gateway-prefix-3"
FOLDERS = "[0-9a-f]" * 16  # pattern of their names, a digest of the model's
MAX_QUEUED_BYTES = 256 << 20  # caches waiting to be written, which no other limit counts

log = logging.getLogger(__name__)
_numbers = itertools.count()  # numbers of this process's temporary files


class _ForeignError(ValueError):
    """A file that the store did not write itself or can't use; the message says why."""


@dataclass(frozen=True, eq=False)
class Stored:
    """One file of the store."""

    path: Path
    tokens: bytes  # token ids as 32-bit numbers
    nbytes: int
    trimmable: bool
    kind: str  # digest of other inputs of the prompt, such as images; "" for text alone
    body_digest: str

    @property
    def length(self) -> int:
        """The number of tokens in its caches."""
        return len(self.tokens) // WIDTH


class PrefixStore:
    """The files of one model in the folder that all models share."""

    def __init__(self, folder: Path, max_bytes: int, model: str):
        self.max_bytes = max_bytes
        # Called on the writer thread when the queue has got room for another `save`.
        self.on_room: Callable[[], None] = lambda: None
        self.max_queued = MAX_QUEUED_BYTES
        self._model = model
        self._root = folder
        self._folder = folder / hashlib.sha256(model.encode()).hexdigest()[:16]
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefix-store")
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefix-reader")
        self._lock = threading.Lock()  # guards the attributes below
        self._entries: dict[Path, Stored] = {}
        self._indexes: PrefixIndexes[Stored] = PrefixIndexes()  # by kind
        self._queued: dict[Path, int] = {}  # bytes of each file waiting to be written
        self._opened = self._writer.submit(self._open)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Stored]:
        with self._lock:
            return iter(list(self._entries.values()))

    def longest(self, kind: str, tokens: bytes) -> tuple[int, Stored] | None:
        """Return the length of the longest stored prefix, in tokens, and the file that has it."""
        with self._lock:
            return self._indexes.of(kind).longest(tokens)

    def opened(self, timeout_s: float) -> bool:
        """Wait at most `timeout_s`; return whether the files that were there before are known."""
        wait([self._opened], timeout_s)
        return self._opened.done()

    def save(self, tokens: bytes, caches: Sequence[Any], kind: str = "") -> bool:
        """Queue caches that hold `tokens` to be written; never waits for the disk.

        Return False if the queue is full, and a later attempt may succeed. Return True if the
        caches are queued, are already stored, or can never be written.
        """
        path = self._folder / _file_name(tokens, kind)
        nbytes = size_of(caches)
        if nbytes > self.max_bytes or not can_be_stored(caches):
            return True
        with self._lock:
            if path in self._entries or path in self._queued:
                return True
            if self._queued and sum(self._queued.values()) + nbytes > self.max_queued:
                return False
            self._queued[path] = nbytes
        metadata = {
            "format": FORMAT,
            "model": self._model,
            "tokens": base64.b64encode(tokens).decode(),
            "kind": kind,
        }
        try:
            self._writer.submit(self._write, path, Snapshot(caches, metadata))
        except Exception as error:  # noqa: BLE001 - a closed store, MLX, or a lack of memory
            self._write_failed(path, error)
        return True

    def read(self, entry: Stored) -> Future[bytes | None]:
        """Return a future of a file's bytes, for `load`; None, with a warning, for a damaged file.

        Raises RuntimeError once the store is closed.
        """
        return self._reader.submit(self._read, entry.path)

    def load(self, entry: Stored, data: bytes) -> list[Any] | None:
        """Return the caches in a file's bytes; None, with a warning, for a damaged file."""
        try:
            caches = caches_in(data)
            _check_lengths(caches, entry.length)
        except Exception as error:  # noqa: BLE001 - a damaged file may fail in any way
            self._reject(entry.path, error)
            return None
        return caches

    def flush(self) -> None:
        """Wait until the store is open and all queued writes are done.

        Must not be called on the MLX thread.
        """
        with suppress(RuntimeError):  # raised by a closed store; there `wait_closed` waits
            self._writer.submit(int).result()

    def close(self) -> None:
        """Refuse further work and return at once; queued work is still carried out."""
        self._writer.shutdown(wait=False)
        self._reader.shutdown(wait=False)

    def wait_closed(self) -> None:
        """Close the store and wait for queued work. Idempotent.

        Must not be called on the MLX thread.
        """
        self._writer.shutdown(wait=True)
        self._reader.shutdown(wait=True)

    # The reader thread calls the following method.

    def _read(self, path: Path) -> bytes | None:
        try:
            digest = self._checked(path).body_digest
            data = path.read_bytes()
            check_body(data, digest)
            os.utime(path)  # marks the file as used now
        except Exception as error:  # noqa: BLE001 - a damaged file may fail in any way
            self._reject(path, error)
            return None
        return data

    # The writer thread calls the following methods.

    def _open(self) -> None:
        try:
            make_private(self._folder)
            refuse_others(self._root)
            for entry in self._scan():
                self._add(entry)
            self._make_room(0)
        except OSError as error:
            log.warning("can't use the prefix cache folder `%s`: %s", self._root, error)
            self.max_bytes = 0

    def _write(self, path: Path, snapshot: Snapshot) -> None:
        try:
            self._write_file(path, snapshot)
        finally:
            self.on_room()

    def _write_file(self, path: Path, snapshot: Snapshot) -> None:
        partial = path.with_name(f".{os.getpid()}.{next(_numbers)}.{path.name}")
        try:
            self._make_room(snapshot.nbytes)
            snapshot.write(partial)
            partial.replace(path)
            entry = self._checked(path)
        except Exception as error:  # noqa: BLE001 - no caller could handle it
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            self._write_failed(path, error)
            return
        with self._lock:
            index = self._indexes.of(entry.kind)
            covered = index.covered_by(entry.tokens) if entry.trimmable else []
            self._queued.pop(path, None)
        for other in covered:
            self._remove(other.path)
        self._add(entry)

    def _write_failed(self, path: Path, error: Exception) -> None:
        log.warning("can't write to the prefix cache folder `%s`: %s", self._folder, error)
        with self._lock:
            self._queued.pop(path, None)

    def _scan(self) -> Iterator[Stored]:
        for path in sorted(self._folder.glob("*.safetensors")):
            try:
                yield self._checked(path)
            except Exception as error:  # noqa: BLE001 - a damaged file may fail in any way
                self._reject(path, error)

    def _checked(self, path: Path) -> Stored:
        """Return a file's entry after checking its header, without reading its arrays.

        Raises OSError, or any error for an unusable file.
        """
        metadata = read_header(path)
        # mlx-lm flattens a list: the keys `0.…` are the store's metadata, `1.…` the cache classes.
        if metadata.get("0.format") != FORMAT:
            raise _ForeignError("it is of another format")
        if metadata.get("0.model") != self._model:
            raise _ForeignError("it belongs to another model")
        names = {name for key, name in metadata.items() if key.startswith("1.")}
        kinds = [kind for name in names if (kind := stored_kind(name)) is not None]
        if not kinds or len(kinds) < len(names):
            raise _ForeignError(f"it holds caches of unknown kinds: {sorted(names)}")
        tokens = base64.b64decode(metadata["0.tokens"], validate=True)
        if path.name != _file_name(tokens, metadata["0.kind"]):
            raise _ForeignError("it holds other tokens than its name says")
        trimmable = all(kind.trimming is Trimming.ALWAYS for kind in kinds)
        return Stored(
            path,
            tokens,
            path.stat().st_size,
            trimmable,
            metadata["0.kind"],
            metadata["0.body_digest"],
        )

    def _make_room(self, nbytes: int) -> None:
        """Remove the least recently used files, of any model, until `nbytes` more fit."""
        files = []
        for path in self._root.glob(f"{FOLDERS}/*.safetensors"):
            with suppress(OSError):  # such as a file that another model's store has just removed
                files.append((path, path.stat()))
        files = [(path, status) for path, status in files if stat.S_ISREG(status.st_mode)]
        total = sum(status.st_size for _, status in files) + nbytes
        for path, status in sorted(files, key=lambda file: file[1].st_mtime_ns):
            if total <= self.max_bytes:
                return
            self._remove(path)
            total -= status.st_size

    def _remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._forget(path)

    # Any thread may call the following methods.

    def _add(self, entry: Stored) -> None:
        with self._lock:
            self._entries[entry.path] = entry
            self._indexes.add(entry.kind, entry.tokens, entry, trimmable=entry.trimmable)

    def _reject(self, path: Path, error: Exception) -> None:
        """Log why a file can't be used, and remove it if it is damaged or foreign."""
        log.warning("ignoring the prefix cache file `%s`: %s", path, error or repr(error))
        self._forget(path)
        if not isinstance(error, OSError):
            with suppress(OSError):  # such as a folder in the place of a file
                path.unlink()

    def _forget(self, path: Path) -> None:
        with self._lock:
            entry = self._entries.pop(path, None)
            if entry is not None:
                self._indexes.remove(entry.kind, entry.tokens, trimmable=entry.trimmable)


def _file_name(tokens: bytes, kind: str) -> str:
    return f"{hashlib.sha256(tokens + kind.encode()).hexdigest()[:32]}.safetensors"


def _check_lengths(caches: Sequence[Any], tokens: int) -> None:
    for cache in caches:
        if kind_of(cache).counts and cache.offset != tokens:
            raise _ForeignError("its caches hold another number of tokens")
