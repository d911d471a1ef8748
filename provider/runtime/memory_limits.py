"""The limits on this process's memory: of the machine, of its cgroups, of the process itself.

What exceeds the machine's memory or a cgroup's limit is killed. What exceeds a limit of the process
is refused, and then mlx ends the process by a segmentation fault. So nothing is tried that may
exceed one.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["MemoryLimit", "memory_limits"]

PROCESS = Path("/proc/self")
REST_SHARE = 10  # what is left divided by this is not for weights and KV caches
# That is at least this much, or half of what is left: while caches grow and rows are copied, memory
# holds about half as much again as they take.
MIN_REST = 1 << 30
THREADS = 1 << 30  # address space that sixteen threads reserve for their heaps without using it


@dataclass(frozen=True)
class _Files:
    """What the files of a cgroup are called, which differs by version."""

    limits: tuple[str, ...]
    usage: str
    page_cache: tuple[str, ...]  # counts in memory.stat; the system takes it back when it must


# Above `high` a cgroup is not killed, but hardly goes on.
VERSION_1 = _Files(
    ("memory.limit_in_bytes",),
    "memory.usage_in_bytes",
    ("total_active_file", "total_inactive_file"),
)
VERSION_2 = _Files(
    ("memory.max", "memory.high"), "memory.current", ("active_file", "inactive_file")
)


@dataclass(frozen=True)
class MemoryLimit:
    """One limit in bytes, how much of it is in use, and how much of it threads will reserve."""

    name: str
    nbytes: int
    used: int = 0
    reserved: int = 0
    advice: bool = False  # whether more may be taken by who knows better

    @property
    def left(self) -> int:
        """The bytes that may still be used."""
        return max(0, self.nbytes - self.used - self.reserved)

    @property
    def room(self) -> int:
        """The part of `left` for weights and KV caches; the arrays of a step need the rest."""
        return self.left - max(self.left // REST_SHARE, min(self.left // 2, MIN_REST))

    def __str__(self) -> str:
        return f"{self.name} is {self.nbytes >> 20} MiB, {self.used >> 20} MiB of it in use"


def memory_limits(process: Path = PROCESS) -> list[MemoryLimit]:
    """Return all limits. `process` is the folder in /proc that tells of this process."""
    size, resident, data = _sizes(process)
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return [
        MemoryLimit("the machine's memory", machine, resident),
        *_of_process("RLIMIT_AS", resource.RLIMIT_AS, size, THREADS),
        *_of_process("RLIMIT_DATA", resource.RLIMIT_DATA, data, 0),
        *_of_cgroups(process, resident),
    ]


def _sizes(process: Path) -> tuple[int, int, int]:
    """Return the bytes of the process's address space, in memory, and of its data; 0 if unknown."""
    try:
        pages = [int(number) for number in (process / "statm").read_text().split()]
    except (OSError, ValueError):  # only Linux has this file
        return 0, 0, 0
    size = os.sysconf("SC_PAGE_SIZE")
    return pages[0] * size, pages[1] * size, pages[5] * size


def _of_process(name: str, which: int, used: int, reserved: int) -> Iterator[MemoryLimit]:
    soft, _ = resource.getrlimit(which)
    if soft != resource.RLIM_INFINITY:
        yield MemoryLimit(name, soft, used, reserved)


def _of_cgroups(process: Path, resident: int) -> Iterator[MemoryLimit]:
    for folder, root, files in _cgroups(process):
        levels = [folder, *folder.parents]
        for level in levels[: levels.index(root) + 1]:
            used = max(resident, _number(level / files.usage) - _page_cache(level, files))
            for name in files.limits:
                if (nbytes := _number(level / name)) > 0:
                    yield MemoryLimit(f"{name} of {level}", nbytes, used)


def _cgroups(process: Path) -> Iterator[tuple[Path, Path, _Files]]:
    """Yield the process's own cgroup in each mount that has some, and the root of the mount."""
    try:
        mounts = (process / "mountinfo").read_text().splitlines()
        lines = (process / "cgroup").read_text().splitlines()
    except OSError:  # only Linux has these files
        return
    fields = [line.split(":", 2) for line in lines if line.count(":") >= 2]
    paths = {name: path for _, names, path in fields for name in names.split(",")}
    for line in mounts:
        before, _, after = line.partition(" - ")
        top, mount = before.split(" ")[3:5]
        kind, _, options = after.split(" ", 2)
        if kind == "cgroup2" and "" in paths:
            yield _inside(Path(mount), top, paths[""]), Path(mount), VERSION_2
        elif kind == "cgroup" and "memory" in paths and "memory" in options.split(","):
            yield _inside(Path(mount), top, paths["memory"]), Path(mount), VERSION_1


def _inside(root: Path, top: str, path: str) -> Path:
    """Return the folder of the cgroup `path` in a mount at `root` that shows the cgroups in `top`.

    A container may see its own cgroup as the mount's root, though its path says otherwise.
    """
    inside = Path(path).relative_to(top) if Path(path).is_relative_to(top) else Path()
    return folder if (folder := root / inside).is_dir() else root


def _number(path: Path) -> int:
    """Return the number in a file; 0 for another text, such as `max`, or no file."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0


def _page_cache(folder: Path, files: _Files) -> int:
    try:
        lines = (folder / "memory.stat").read_text().splitlines()
        counts = dict(line.split(" ", 1) for line in lines)
        return sum(int(counts.get(name, 0)) for name in files.page_cache)
    except (OSError, ValueError):
        return 0
