"""Imports mlx, after loading a fast BLAS.

On a Linux CPU the mlx wheel links the reference BLAS, which is about thirty times slower than
OpenBLAS for the matrix products of a transformer. A library that is loaded globally before mlx
takes precedence. So this module loads OpenBLAS if the system has it, and no module outside this
package imports mlx. On macOS (Accelerate, Metal) and with CUDA nothing needs to be done.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import os
import sys
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import version
from typing import Final

from provider.runtime.fused_kernels import FusedKernels
from provider.runtime.kernel_folder import keep_kernels, let_plans_be_many, private_folder
from provider.runtime.memory_limits import MemoryLimit, memory_limits

log = logging.getLogger(__name__)

OPENBLAS_NAMES = ("libopenblas.so.0", "libopenblasp.so.0", "libopenblas.so")


# Whether mlx was there already, so that the BLAS it was linked with stays.
TOO_LATE: Final = "mlx.core" in sys.modules


def _load_openblas(
    names: Sequence[str] = OPENBLAS_NAMES,
) -> tuple[str, ctypes.CDLL] | tuple[None, None]:
    """Load OpenBLAS for the whole process; return its name and handle, None without it."""
    if sys.platform != "linux" or TOO_LATE:
        return None, None
    for name in names:
        try:
            return name, ctypes.CDLL(name, mode=os.RTLD_NOW | os.RTLD_GLOBAL)
        except OSError:
            continue
    return None, None


OPENBLAS, _openblas = _load_openblas()
BLAS_THREADS: Final[int] = _openblas.openblas_get_num_threads() if _openblas else 1


_blas_threads = BLAS_THREADS


def set_blas_threads(threads: int) -> None:
    """Set the number of threads of matrix products, for the whole process.

    `threads` must be from 1 to BLAS_THREADS.
    """
    global _blas_threads  # noqa: PLW0603 - OpenBLAS has one setting per process
    if _openblas is not None and threads != _blas_threads:
        _openblas.openblas_set_num_threads(threads)
        _blas_threads = threads


let_plans_be_many()

import mlx.core as mx  # noqa: E402 - OpenBLAS must be loaded before
from mlx.utils import tree_flatten  # noqa: E402

__all__ = [
    "BLAS_THREADS",
    "OPENBLAS",
    "active_memory",
    "clear_streams_at_thread_end",
    "describe",
    "fusing",
    "keep_fused_kernels",
    "mx",
    "on_cpu",
    "prepares_kernels",
    "set_blas_threads",
    "smallest_limit",
    "tree_flatten",
]


def on_cpu() -> bool:
    """Return whether mlx computes on the CPU, where float32 is fast and 16-bit types are slow."""
    return bool(mx.default_device().type == mx.DeviceType.cpu)


def _fused_kernels() -> FusedKernels | None:
    """Return the fused kernels of this process, None without a folder or if mlx is to fuse none."""
    try:
        release = version("mlx")
        kept = private_folder(f"{release}-cpu")
        if "MLX_DISABLE_COMPILE" not in os.environ:
            return FusedKernels(kept, f"mlx/{release}/cpu", mx.enable_compile, mx.disable_compile)
    except OSError as error:
        log.warning("nothing is fused: %s", error)
    mx.disable_compile()
    return None


_kernels: FusedKernels | None = None
if on_cpu():
    _kernels = _fused_kernels()
    if _kernels is not None:
        _kernels.use()
elif mx.cuda.is_available():
    # The names of compiled kernels say neither by which mlx nor for which architecture they are.
    keep_kernels(f"{version('mlx')}-{mx.device_info().get('architecture', 'gpu')}")


def fusing() -> AbstractContextManager[None]:
    """Return a context in which a forward pass is built; on a CPU, only there mlx fuses."""
    return nullcontext() if _kernels is None else _kernels.fusing()


def prepares_kernels() -> bool:
    """Return whether mlx may compile or plan something when it is first used, and takes longer.

    Without fusing, a CPU's kernels are all there.
    """
    return not on_cpu() or _kernels is not None


def keep_fused_kernels() -> None:
    """Keep the fused kernels that a model needed, for later processes; waits for what is computed.

    Only the MLX thread may call it.
    """
    if _kernels is not None:
        mx.synchronize()
        _kernels.keep()


def describe() -> str:
    """Return a phrase for the log: the device, and on a CPU its BLAS."""
    if not on_cpu():
        return "GPU"
    if sys.platform != "linux":
        return "CPU"
    if OPENBLAS:
        return f"CPU, float32, {OPENBLAS}"
    reason = "; import provider before mlx for a fast one" if TOO_LATE else ""
    return f"CPU, float32, mlx's own BLAS (slow{reason})"


@functools.cache
def smallest_limit() -> MemoryLimit:
    """Return the limit on memory that is reached first, as it was at the first call.

    On a GPU that is what Metal recommends, if it does.
    """
    if on_cpu():
        return min(memory_limits(), key=lambda limit: limit.room)
    recommended = int(mx.device_info().get("max_recommended_working_set_size", 0))
    if recommended:
        return MemoryLimit("what Metal recommends", recommended, advice=True)
    return memory_limits()[0]  # the machine's; the others don't count a GPU's memory


def active_memory() -> int:
    """Return the size in bytes of all mlx arrays in this process."""
    return int(mx.get_active_memory())


class _StreamGuard:
    """Destroys a thread's mlx streams when the thread's local storage is dropped."""

    def __del__(self) -> None:
        mx.clear_streams()


_local = threading.local()


def clear_streams_at_thread_end() -> None:
    """Make the calling thread destroy its mlx streams when it ends. Idempotent.

    A thread that used mlx and leaves its streams may abort the process at exit (mlx issue 3126).
    The thread drops its local storage itself, before a join of it returns. There must be only one
    guard per thread, because a second one would drop the first, which destroys the streams.
    """
    if not hasattr(_local, "guard"):
        _local.guard = _StreamGuard()
