"""Where mlx enters the process: a fast BLAS first, then mlx itself.

On a Linux CPU the mlx wheel links the reference BLAS, about thirty times slower than OpenBLAS at
the matrix products of a transformer. A library loaded globally before mlx takes precedence, so
this module loads OpenBLAS where the system has it, and every file that uses mlx imports this one
first. On macOS (Accelerate, Metal) and CUDA nothing needs to be done.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from typing import Final

OPENBLAS_NAMES = ("libopenblas.so.0", "libopenblasp.so.0", "libopenblas.so")


def _load_openblas() -> tuple[str, ctypes.CDLL] | tuple[None, None]:
    """Load OpenBLAS for the whole process, where it is to be had."""
    if sys.platform != "linux" or "mlx.core" in sys.modules:
        return None, None
    for name in OPENBLAS_NAMES:
        try:
            return name, ctypes.CDLL(name, mode=os.RTLD_NOW | os.RTLD_GLOBAL)
        except OSError:
            continue
    return None, None


OPENBLAS, _openblas = _load_openblas()
BLAS_THREADS: Final[int] = _openblas.openblas_get_num_threads() if _openblas else 1


_blas_threads = BLAS_THREADS


def set_blas_threads(threads: int) -> None:
    """Let matrix products use up to `threads` threads, in the whole process; 1 to BLAS_THREADS."""
    global _blas_threads  # noqa: PLW0603 - it is the process's
    if _openblas is not None and threads != _blas_threads:
        _openblas.openblas_set_num_threads(threads)
        _blas_threads = threads


import mlx.core as mx  # noqa: E402 - the order is this module's whole purpose

__all__ = [
    "BLAS_THREADS",
    "OPENBLAS",
    "active_memory",
    "clear_streams_at_thread_end",
    "describe",
    "mx",
    "on_cpu",
    "set_blas_threads",
    "usable_memory",
]


def on_cpu() -> bool:
    """Whether mlx computes on the CPU, where float32 is the fast type and 16 bits are slow."""
    return bool(mx.default_device().type == mx.DeviceType.cpu)


def describe() -> str:
    """Return one phrase for the log: the device, and on a CPU which BLAS serves it."""
    if not on_cpu():
        return "GPU"
    if sys.platform != "linux":
        return "CPU"
    return f"CPU, float32, {OPENBLAS}" if OPENBLAS else "CPU, float32, mlx's own BLAS (slow)"


def usable_memory() -> int:
    """Return how many bytes mlx may use: what Metal recommends, or the machine's memory."""
    recommended = 0 if on_cpu() else mx.device_info().get("max_recommended_working_set_size", 0)
    return int(recommended) or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def active_memory() -> int:
    """Return how many bytes mlx's arrays hold in this process."""
    return int(mx.get_active_memory())


class _StreamGuard:
    """Destroys the mlx streams of the thread whose local storage it is dropped from."""

    def __del__(self) -> None:
        mx.clear_streams()


_local = threading.local()


def clear_streams_at_thread_end() -> None:
    """Make the calling thread destroy its mlx streams when it ends.

    A thread that used mlx and does not may abort the process at its exit (mlx issue 3126). The
    thread's local storage is dropped by the thread itself, before whoever joins it goes on. Asked
    for again it changes nothing: a second guard would drop the first, and the streams with it.
    """
    if not hasattr(_local, "guard"):
        _local.guard = _StreamGuard()
