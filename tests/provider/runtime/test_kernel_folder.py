"""Kernels that mlx compiles are kept where nobody else can write."""

from __future__ import annotations

import logging
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from provider.runtime.kernel_folder import VARIABLE, keep_kernels
from tests.support.timeouts import STARTING


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CACHE_DIRECTORY", raising=False)
    monkeypatch.setenv(VARIABLE, "")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / "cache"


def mode(folder: str | Path) -> int:
    return stat.S_IMODE(Path(folder).stat().st_mode)


def test_the_folder_is_in_the_users_cache_and_only_theirs(cache: Path) -> None:
    keep_kernels("1.2-sm_90")
    kept = cache / "mlx-gateway" / "kernels"
    assert os.environ[VARIABLE] == str(kept / "1.2-sm_90")
    assert mode(kept) == mode(os.environ[VARIABLE]) == 0o700


def test_another_version_has_another_folder(cache: Path) -> None:
    found = set()
    for version in ("1.2-sm_90", "1.3-sm_90", "1.3-sm_80", "1.2-sm_90"):
        os.environ[VARIABLE] = ""
        keep_kernels(version)
        found.add(os.environ[VARIABLE])
    assert len(found) == 3


def open_to_all(folder: Path) -> None:
    folder.mkdir(parents=True)
    folder.chmod(0o777)


def linked(folder: Path) -> None:
    elsewhere = folder.parents[2] / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    folder.parent.mkdir(parents=True)
    folder.symlink_to(elsewhere)


def no_folder(folder: Path) -> None:
    folder.parent.parent.mkdir(parents=True)
    folder.parent.write_text("a file")


@pytest.mark.parametrize(
    "spoil", [open_to_all, linked, no_folder], ids=lambda spoil: str(spoil.__name__)
)
def test_without_such_a_folder_a_temporary_one_is_made(
    cache: Path, spoil: Callable[[Path], None]
) -> None:
    kept = cache / "mlx-gateway" / "kernels"
    spoil(kept)
    keep_kernels("1.2")
    made = Path(os.environ[VARIABLE])
    assert kept not in (made, made.parent)
    assert mode(made) == 0o700


def test_a_services_cache_folder_is_used(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CACHE_DIRECTORY", f"{tmp_path / 'one'}:{tmp_path / 'two'}")
    keep_kernels("1.2")
    assert os.environ[VARIABLE].startswith(str(tmp_path / "one"))


@pytest.mark.parametrize(("mode", "warnings"), [(0o755, 0), (0o777, 1)])
def test_an_operators_folder_stays_and_one_that_others_write_to_is_told(
    cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, warnings: int
) -> None:
    chosen = tmp_path / "chosen"
    chosen.mkdir()
    chosen.chmod(mode)
    os.environ[VARIABLE] = str(chosen)
    with caplog.at_level(logging.WARNING):
        keep_kernels("1.2")
    assert os.environ[VARIABLE] == str(chosen)
    assert len(caplog.records) == warnings


PROGRAM = """
import os
from provider.runtime.mlx import mx
print(os.environ["MLX_ENABLE_CACHE_THRASHING_CHECK"], os.environ["MLX_CUDA_SDPA_CACHE_SIZE"])
"""


@pytest.mark.parametrize(
    ("chosen", "plans"), [({}, "1024"), ({"MLX_CUDA_SDPA_CACHE_SIZE": "7"}, "7")]
)
def test_mlx_may_see_new_shapes_without_end(chosen: dict[str, str], plans: str) -> None:
    usual = {name: value for name, value in os.environ.items() if not name.startswith("MLX_")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        timeout=STARTING,
        check=True,
        env={**usual, **chosen},
    )
    assert done.stdout.split() == ["0", plans]
