"""The fast BLAS, the device and its memory, and streams that live as long as their thread."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from provider.runtime import mlx as runtime
from provider.runtime.memory_limits import memory_limits
from provider.runtime.mlx import (
    active_memory,
    clear_streams_at_thread_end,
    describe,
    mx,
    on_cpu,
    smallest_limit,
)
from tests.support.timeouts import STARTING


def _compute() -> float:
    clear_streams_at_thread_end()
    return float(mx.arange(4, dtype=mx.float32).sum().item())


def test_a_second_guard_does_not_destroy_a_threads_streams() -> None:
    with ThreadPoolExecutor(max_workers=1) as thread:
        assert [thread.submit(_compute).result() for _ in range(3)] == [6.0, 6.0, 6.0]


def test_a_thread_can_compute_after_another_has_ended() -> None:
    for _ in range(3):
        with ThreadPoolExecutor(max_workers=1) as thread:
            assert thread.submit(_compute).result() == 6.0


INTERPRETER = pytest.mark.slow("an interpreter each, to import what imports the provider")


@pytest.mark.parametrize(
    "imports",
    [
        "provider.mlx_provider",
        pytest.param("gateway.commands.serve", marks=INTERPRETER),
        pytest.param("tests.bench.engine", marks=INTERPRETER),
    ],
)
def test_imports_look_for_a_fast_blas_before_mlx_is_there_and_print_nothing(imports: str) -> None:
    program = f"import {imports}; from provider.runtime import mlx; print(mlx.TOO_LATE)"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=STARTING, check=True)
    assert (done.stdout, done.stderr) == ("False\n", "")


@pytest.mark.skipif(sys.platform != "linux" or not on_cpu(), reason="other devices bring their own")
def test_an_application_that_imported_mlx_first_is_told_what_to_do() -> None:
    program = "import mlx.core; from provider.runtime.mlx import describe; print(describe())"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=STARTING, check=True)
    assert "import provider before mlx" in done.stdout


def test_the_smallest_limit_is_the_one_with_the_least_room() -> None:
    smallest = smallest_limit()
    assert smallest is smallest_limit(), "what models take later makes it no smaller"
    if on_cpu():
        assert all(smallest.room <= limit.room + limit.used for limit in memory_limits())


HAS_OPENBLAS = pytest.mark.skipif(not runtime.OPENBLAS, reason="the system has no OpenBLAS")


@HAS_OPENBLAS
def test_the_threads_of_matrix_products_are_set_for_the_process() -> None:
    program = """
from provider.runtime import mlx
print(mlx.BLAS_THREADS)
for threads in (1, mlx.BLAS_THREADS):
    mlx.set_blas_threads(threads)
    print(mlx._openblas.openblas_get_num_threads())
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=STARTING,
        check=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "2"},
    )
    usual, *then = done.stdout.split()
    assert then == ["1", usual]


@HAS_OPENBLAS
def test_the_first_blas_that_the_system_has_is_loaded() -> None:
    assert runtime._load_openblas(("libnone.so.0", *runtime.OPENBLAS_NAMES))[0] == runtime.OPENBLAS
    assert runtime._load_openblas(("libnone.so.0",)) == (None, None)


@pytest.mark.skipif(sys.platform != "linux" or not on_cpu(), reason="other devices bring their own")
def test_the_log_names_the_blas_of_a_cpu() -> None:
    blas = runtime.OPENBLAS or "mlx's own BLAS (slow)"
    assert describe() == f"CPU, float32, {blas}"


def test_the_active_memory_grows_by_an_array_and_shrinks_when_it_is_dropped() -> None:
    before = active_memory()
    array = mx.ones((1 << 20,), mx.float32)
    mx.eval(array)
    held = active_memory() - before
    del array
    assert held >= 4 << 20
    assert active_memory() - before < 4 << 20


FUSING = """
import sys, tempfile
from provider.runtime.mlx import fusing, keep_fused_kernels, mx
fused = mx.compile(lambda x: mx.exp(x) * x + 1)
if sys.argv[1] == "forward":
    with fusing():
        values = fused(mx.ones((2, 3)))
else:
    values = fused(mx.ones((2, 3)))
mx.eval(values)
keep_fused_kernels()
print(tempfile.gettempdir())
"""


def fuse(what: str, cache: Path, common: Path) -> str:
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "TMPDIR": str(common)}
    environment.pop("MLX_DISABLE_COMPILE", None)
    program = [sys.executable, "-c", FUSING, what]
    made = subprocess.run(program, env=environment, capture_output=True, text=True, check=True)
    return made.stdout.strip()


@pytest.mark.skipif(not on_cpu(), reason="mlx compiles with the system's compiler on a CPU alone")
@pytest.mark.parametrize("what", ["forward", "sampler"])
def test_only_forward_passes_are_fused_and_never_in_the_common_folder(
    tmp_path: Path, what: str
) -> None:
    cache, common = tmp_path / "cache", tmp_path / "common"
    common.mkdir()
    assert fuse(what, cache, common) == str(common)  # Python's own temporary files stay there
    assert list(common.iterdir()) == []
    kept = [path.suffix for path in cache.rglob("*") if path.is_file()]
    expected = [".so"] if what == "forward" and shutil.which("g++") else []
    assert kept == expected


UNFUSED = """
import sys, tempfile
tempfile.tempdir = sys.argv[1]
from provider.runtime.mlx import fusing, keep_fused_kernels, mx
fused = mx.compile(lambda x: mx.exp(x) * x + 1)
with fusing():
    print(round(fused(mx.ones(())).item(), 3))
keep_fused_kernels()
"""


def without_fusing(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Compute with this folder for what is kept and for what is temporary."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder), **variables}
    program = [sys.executable, "-c", UNFUSED, str(folder)]
    return subprocess.run(program, env=environment, capture_output=True, text=True, check=True)


@pytest.mark.skipif(not on_cpu(), reason="mlx compiles with the system's compiler on a CPU alone")
def test_without_any_folder_for_kernels_nothing_is_fused_and_the_log_says_so(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").touch()
    done = without_fusing(tmp_path / "file")
    assert done.stdout == "3.718\n"
    assert "nothing is fused: " in done.stderr


@pytest.mark.skipif(not on_cpu(), reason="mlx compiles with the system's compiler on a CPU alone")
def test_where_mlx_is_told_not_to_fuse_no_kernel_is_kept(tmp_path: Path) -> None:
    done = without_fusing(tmp_path, MLX_DISABLE_COMPILE="1")
    assert (done.stdout, done.stderr) == ("3.718\n", "")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
