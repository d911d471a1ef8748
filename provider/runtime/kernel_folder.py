"""A folder of the user's own for the kernels that mlx compiles, for CUDA or for a CPU.

The first use of a kernel is compiled, for seconds. mlx keeps what it compiles, by default in the
common temporary folder: it is lost with a restart of the machine, and others who can write there
could put code into this process. Metal keeps its own kernels.
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import tempfile
from pathlib import Path

from provider.runtime.folders import make_private

__all__ = ["VARIABLE", "keep_kernels", "let_plans_be_many", "private_folder"]

VARIABLE = "MLX_PTX_CACHE_DIR"  # mlx reads it when it first compiles a kernel
# mlx keeps a plan for each shape of an attention, the last used of them. Once it has made twice as
# many as it keeps, it raises an error at every further one, unless this variable is 0.
THRASHING_CHECK = "MLX_ENABLE_CACHE_THRASHING_CHECK"
PLANS = "MLX_CUDA_SDPA_CACHE_SIZE"  # how many it keeps; by default 256
MANY = 1024

log = logging.getLogger(__name__)


def let_plans_be_many() -> None:
    """Let mlx see new shapes without end, and keep more of them; an operator's values stay.

    Must be called before mlx computes.
    """
    os.environ.setdefault(THRASHING_CHECK, "0")
    os.environ.setdefault(PLANS, str(MANY))


def keep_kernels(version: str) -> None:
    """Let mlx keep compiled kernels in the user's cache, by `version` of what compiles them.

    Only this user can use the folder. Where there can be none, a temporary one is used. A folder
    that the operator has chosen stays, and a warning says if others can write to it.
    """
    chosen = os.environ.get(VARIABLE)
    if chosen:
        _warn_of_writers(Path(chosen))
    else:
        os.environ[VARIABLE] = str(private_folder(version))


def private_folder(version: str) -> Path:
    """Return the folder in the user's cache for kernels of `version`, a temporary one without it.

    Raises OSError if there can be no folder at all.
    """
    try:
        return _kept_folder(version)
    except (OSError, RuntimeError) as error:  # RuntimeError for a user without a home folder
        log.warning("compiled kernels are not kept: %s", error)
    made = tempfile.mkdtemp(prefix="mlx-gateway-")
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return Path(made)


def _kept_folder(version: str) -> Path:
    """Return the folder in the user's cache. Raises OSError or RuntimeError."""
    kept = _cache().resolve() / "mlx-gateway" / "kernels"
    make_private(kept)
    folder = kept / version
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _cache() -> Path:
    """Return the cache folder: systemd's for a service, the desktop's, or the usual one."""
    given = os.environ.get("CACHE_DIRECTORY", "").partition(":")[0]
    given = given or os.environ.get("XDG_CACHE_HOME", "")
    return Path(given) if given.startswith("/") else Path.home() / ".cache"


def _warn_of_writers(folder: Path) -> None:
    try:
        found = folder.stat()
    except OSError:
        return  # mlx makes it
    if found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o022:
        log.warning(
            "others can write to `%s`, from which mlx loads compiled kernels; let %s name a folder "
            "of your own",
            folder,
            VARIABLE,
        )
