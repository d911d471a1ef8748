"""Code that comes with a model never runs, whichever library would run it."""

import json
import threading

import pytest
from transformers.dynamic_module_utils import get_class_in_module

from provider import MLXProvider
from provider.interface import ModelLoadingError
from provider.models.remote_code import without_code
from tests.support.tiny_models import LLAMA, write_model
from tests.support.tiny_vision import write_vision_model


@pytest.fixture
def code(tmp_path):
    """Code that creates a file when it runs, and that file."""
    mark = tmp_path / "it was run"
    return f"import pathlib\npathlib.Path({str(mark)!r}).touch()\nclass Own: pass\n", mark


def spoil(folder, code, files, **more):
    (folder / "own.py").write_text(code)
    for file in files:
        said = json.loads((folder / file).read_text()) | more
        (folder / file).write_text(json.dumps(said))
    return folder


def refused(folder):
    llm = MLXProvider({"model": str(folder), "max_tokens": 2})
    with pytest.raises(ModelLoadingError) as caught:
        llm.generate("Hi")
    llm.close(0)
    return str(caught.value)


@pytest.mark.parametrize("sees", [False, True])
def test_a_model_made_by_a_file_of_its_own_is_refused(tmp_path, code, sees):
    folder = tmp_path / "model"
    write_vision_model(folder, "llava") if sees else write_model(folder, LLAMA)
    spoil(folder, code[0], ["config.json"], model_file="own.py")
    assert "own.py" in refused(folder)
    assert not code[1].exists()


def test_a_tokenizer_of_its_own_is_refused(tmp_path, code):
    folder = write_model(tmp_path / "model", LLAMA)
    own = {"auto_map": {"AutoTokenizer": ["own.Own", "own.Own"]}, "tokenizer_class": "Own"}
    spoil(folder, code[0], ["tokenizer_config.json"], **own)
    assert "custom code" in refused(folder)
    assert not code[1].exists()


def test_a_processor_of_its_own_is_refused(tmp_path, code):
    folder = write_vision_model(tmp_path / "model", "llava")
    own = {
        "auto_map": {"AutoProcessor": "own.Own", "AutoImageProcessor": "own.Own"},
        "processor_class": "Own",
        "image_processor_type": "Own",
    }
    spoil(folder, code[0], ["processor_config.json", "preprocessor_config.json"], **own)
    assert "custom code" in refused(folder)
    assert not code[1].exists()


def test_other_threads_may_run_code_that_they_trust(tmp_path, code):
    (tmp_path / "own.py").write_text(code[0])
    ran = []
    other = threading.Thread(
        target=lambda: ran.append(get_class_in_module("Own", tmp_path / "own.py"))
    )
    with without_code():
        with pytest.raises(ValueError, match="code of its own, 'Own'; code of models is never run"):
            get_class_in_module("Own", tmp_path / "own.py")
        assert not code[1].exists()
        other.start()
        other.join()
    assert ran[0].__name__ == "Own"
    assert get_class_in_module("Own", tmp_path / "own.py").__name__ == "Own"
