"""What mlx compiles is where nobody else can write."""

import os
import shutil
import stat
import sys
import tempfile
from pathlib import Path

import pytest

from provider.engine.mlx_thread import MlxThread
from provider.runtime import compiled_code
from provider.runtime.compiled_code import keep_compiled_code_private
from provider.runtime.mlx import mx, on_cpu

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mlx compiles for CPUs on Linux")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "shared"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CACHE_DIRECTORY", raising=False)
    compiled_code._folder.cache_clear()
    yield tmp_path / "cache"
    compiled_code._folder.cache_clear()


def mode(folder):
    return stat.S_IMODE(Path(folder).stat().st_mode)


def test_the_folder_is_in_the_users_cache_and_only_theirs(cache):
    before = tempfile.gettempdir()
    keep_compiled_code_private()
    assert os.environ["TMPDIR"] == str(cache / "mlx-gateway" / "compiled")
    assert mode(os.environ["TMPDIR"]) == 0o700
    assert tempfile.gettempdir() == before


def open_to_all(folder):
    folder.mkdir(parents=True)
    folder.chmod(0o777)


def linked(folder):
    elsewhere = folder.parents[2] / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    folder.parent.mkdir(parents=True)
    folder.symlink_to(elsewhere)


def no_folder(folder):
    folder.parent.parent.mkdir(parents=True)
    folder.parent.write_text("a file")


@pytest.mark.parametrize(
    "spoil", [open_to_all, linked, no_folder], ids=lambda spoil: spoil.__name__
)
def test_without_such_a_folder_a_temporary_one_is_made(cache, spoil):
    kept = cache / "mlx-gateway" / "compiled"
    spoil(kept)
    keep_compiled_code_private()
    made = os.environ["TMPDIR"]
    assert made != str(kept)
    assert mode(made) == 0o700
    shutil.rmtree(made)


def test_a_services_cache_folder_is_used(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("CACHE_DIRECTORY", f"{tmp_path / 'one'}:{tmp_path / 'two'}")
    keep_compiled_code_private()
    assert os.environ["TMPDIR"].startswith(str(tmp_path / "one"))


@pytest.mark.skipif(not on_cpu() or not shutil.which("g++"), reason="nothing is compiled here")
def test_the_mlx_thread_compiles_there(cache):
    thread = MlxThread()

    def compute():
        mx.eval(mx.compile(lambda x: mx.tanh(x) * 3 + mx.exp(x))(mx.ones((5,))))

    thread._executor.submit(compute).result()
    thread.close()
    assert list(cache.rglob("*.so"))
    assert not (cache.parent / "shared").exists()
