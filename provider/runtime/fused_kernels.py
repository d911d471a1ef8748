"""Fused kernels for the forward passes of a CPU, made and loaded where nobody else can write.

mlx writes the operations that it fuses as C++, has the system's compiler make a shared object of
them (for about a second, if there is a compiler at all), and loads it: in the temporary folder, by
a name that follows from the operations, where anybody could have put it. Here each process has a
folder of its own, which begins with what earlier processes have made.

Rule: nothing is fused but forward passes. Their operations are known once a model has been tried
out. Those of a sampler contain its temperature, and each new one would stop every stream.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["FusedKernels"]

PREFIX = "process-"


class FusedKernels:
    """The folder of this process, and those kernels in the user's cache that are complete.

    `kept` is the folder in the user's cache and `subfolder` the path under the temporary folder
    at which mlx of this version keeps kernels. `enable` and `disable` turn fusing on and off for
    all operations from then on. A folder of a process that has ended is removed by the next one.
    """

    def __init__(
        self,
        kept: Path,
        subfolder: str,
        enable: Callable[[], None],
        disable: Callable[[], None],
    ):
        self._kept = kept
        self._enable = enable
        self._disable = disable
        self._active = 0
        with _alone(kept):
            _remove_abandoned(kept)
            self.temporary = Path(tempfile.mkdtemp(prefix=PREFIX, dir=kept))
            self._lock = _locked(self.temporary)
        self._owner = os.getpid()
        self._mine = self.temporary / subfolder
        self._mine.mkdir(parents=True)
        _link_missing(kept, self._mine)
        atexit.register(self.close)
        disable()

    def use(self) -> None:
        """Let mlx use this process's folder; Python's own temporary folder stays what it is."""
        tempfile.gettempdir()
        os.environ["TMPDIR"] = str(self.temporary)

    @contextmanager
    def fusing(self) -> Iterator[None]:
        """Fuse what this thread adds to the graph meanwhile; only the MLX thread may do so."""
        self._active += 1
        self._enable()
        try:
            yield
        finally:
            self._active -= 1
            if not self._active:
                self._disable()

    def keep(self) -> None:
        """Keep the kernels made so far for later processes; none may be in the making."""
        with suppress(OSError):  # for instance of a full disk: they are made anew next time
            _link_missing(self._mine, self._kept)

    def close(self) -> None:
        """Remove this process's folder, unless this is a fork of its process."""
        if os.getpid() != self._owner:
            return
        shutil.rmtree(self.temporary, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _link_missing(source: Path, target: Path) -> None:
    for kernel in source.glob("*.so"):
        with suppress(FileExistsError):
            (target / kernel.name).hardlink_to(kernel)


@contextmanager
def _alone(kept: Path) -> Iterator[None]:
    """Hold the lock that keeps others from removing a folder before its process has locked it."""
    held = os.open(kept, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def _locked(folder: Path) -> int | None:
    """Return a descriptor that holds the folder's lock, None if another process has it."""
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(held)
        return None
    return held


def _remove_abandoned(kept: Path) -> None:
    for folder in kept.glob(PREFIX + "*"):
        with suppress(OSError):
            held = _locked(folder)
            if held is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(held)
