"""Each process has its own folder of fused kernels, which begins with what others have made."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from provider.runtime.fused_kernels import PREFIX, FusedKernels
from provider.runtime.mlx import on_cpu

ROOT = Path(__file__).parents[3]
SUBFOLDER = "mlx/1.0/cpu"


class Switch:
    def __init__(self) -> None:
        self.on = True

    def enable(self) -> None:
        self.on = True

    def disable(self) -> None:
        self.on = False


def kernels(kept: Path, switch: Switch | None = None) -> FusedKernels:
    switch = switch or Switch()
    return FusedKernels(kept, SUBFOLDER, switch.enable, switch.disable)


def made(process: FusedKernels) -> set[str]:
    return {path.name for path in (process.temporary / SUBFOLDER).iterdir()}


def test_a_kernel_that_one_process_made_is_there_for_the_next(tmp_path: Path) -> None:
    first = kernels(tmp_path)
    (first.temporary / SUBFOLDER / "libsilu.so").write_text("code")
    (first.temporary / SUBFOLDER / "silu.cpp").write_text("source")
    assert made(kernels(tmp_path)) == set()
    first.keep()
    assert made(kernels(tmp_path)) == {"libsilu.so"}


def test_what_is_kept_outlives_the_process_that_made_it(tmp_path: Path) -> None:
    first = kernels(tmp_path)
    (first.temporary / SUBFOLDER / "libsilu.so").write_text("code")
    first.keep()
    first.keep()
    first.close()
    first.close()
    assert not first.temporary.exists()
    assert (tmp_path / "libsilu.so").read_text() == "code"


def test_the_folder_of_a_process_that_was_killed_is_removed_and_a_living_ones_stays(
    tmp_path: Path,
) -> None:
    living = kernels(tmp_path)
    killed = tmp_path / f"{PREFIX}killed"
    killed.mkdir()
    kernels(tmp_path)
    assert not killed.exists()
    assert living.temporary.exists()


def test_a_fork_does_not_remove_the_folder_of_its_process(tmp_path: Path) -> None:
    process = kernels(tmp_path)
    child = os.fork()
    if child == 0:
        process.close()
        os._exit(0)
    os.waitpid(child, 0)
    assert process.temporary.exists()


def test_operations_are_fused_in_the_context_alone(tmp_path: Path) -> None:
    switch = Switch()
    process = kernels(tmp_path, switch)
    assert not switch.on
    with process.fusing():
        with process.fusing():
            assert switch.on
        assert switch.on
    assert not switch.on
    with pytest.raises(ValueError, match="a fault"), process.fusing():
        raise ValueError("a fault")
    assert not switch.on


def test_python_keeps_its_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tempfile.gettempdir()
    monkeypatch.setenv("TMPDIR", before)
    process = kernels(tmp_path)
    process.use()
    assert os.environ["TMPDIR"] == str(process.temporary)
    assert tempfile.gettempdir() == before


def test_a_cache_that_is_removed_meanwhile_is_no_error(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    process = kernels(kept)
    shutil.rmtree(kept)
    process.keep()
    process.close()
    assert not kept.exists()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not on_cpu(), reason="mlx compiles with the system's compiler on a CPU alone")
def test_models_are_warmed_up_and_give_the_tokens_of_mlx_lm_with_fused_kernels() -> None:
    """The tests of `make test` fuse nothing, since each kernel takes a second to compile."""
    hidden = ("MLX_DISABLE_COMPILE", "PYTEST_")
    environment = {name: os.environ[name] for name in os.environ if not name.startswith(hidden)}
    files = ["tests/provider/engine/test_parity.py", "tests/provider/engine/test_loading.py"]
    chosen = [*files, "-k", "qwen3-greedy or gemma3-greedy or warm"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *chosen]
    done = subprocess.run(
        command, check=False, env=environment, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
