"""A folder of the user's own for the code that mlx compiles.

On a CPU with a C++ compiler, mlx compiles fused operations to shared objects of predictable names
in the folder for temporary files, and loads what it finds there. Where others can write to that
folder, they could put code there that this process runs. mlx looks up TMPDIR at each compilation.
"""

from __future__ import annotations

import atexit
import functools
import logging
import os
import shutil
import stat
import sys
import tempfile
from pathlib import Path

__all__ = ["keep_compiled_code_private"]

log = logging.getLogger(__name__)


def keep_compiled_code_private() -> None:
    """Let mlx compile into a folder that only this user can read and write. Idempotent.

    This sets TMPDIR for the process. The temporary files of Python stay where they are.
    """
    if sys.platform != "linux":
        return  # on macOS the folder for temporary files is the user's own
    try:
        tempfile.gettempdir()  # which Python looks up once
        os.environ["TMPDIR"] = str(_folder())
    except OSError as error:
        log.warning("mlx compiles where others may be able to write: %s", error)


@functools.cache
def _folder() -> Path:
    """Return the folder, which is made; it is kept over a restart where there is a cache folder."""
    try:
        kept = _cache() / "mlx-gateway" / "compiled"
        kept.mkdir(mode=0o700, parents=True, exist_ok=True)
        if _is_private(kept):
            return kept
        log.warning("`%s` is not used for compiled code, because others can use it", kept)
    except (OSError, RuntimeError):  # RuntimeError for a user without a home folder
        pass
    made = tempfile.mkdtemp(prefix="mlx-gateway-")
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return Path(made)


def _cache() -> Path:
    """Return the cache folder: systemd's for a service, the desktop's, or the usual one."""
    given = os.environ.get("CACHE_DIRECTORY", "").partition(":")[0]
    given = given or os.environ.get("XDG_CACHE_HOME", "")
    return Path(given) if given.startswith("/") else Path.home() / ".cache"


def _is_private(folder: Path) -> bool:
    """Return whether it is a folder, no link, and only this user may use it."""
    found = folder.lstat()
    return (
        stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077
    )
