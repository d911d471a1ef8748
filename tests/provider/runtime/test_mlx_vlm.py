"""mlx-vlm has the functions that are used, and is imported only when needed."""

import ast
import inspect
import json
from importlib.metadata import version

import mlx_vlm.utils

from provider.embedded import MODEL_PATH
from provider.runtime import mlx_vlm as runtime
from tests.support.tiny_vision import write_vision_model


def test_the_installed_version_is_the_tested_one():
    assert version("mlx-vlm") == runtime.KNOWN
    assert runtime.available()


def test_mlx_vlm_accepts_the_given_arguments():
    taken = inspect.signature(mlx_vlm.utils.load_processor).parameters
    assert "add_detokenizer" in taken
    assert "lazy" in inspect.signature(mlx_vlm.utils.load_model).parameters


def test_a_supported_model_is_known_by_its_configuration(tmp_path):
    for kind, known in (("qwen2_vl", True), ("nobody_s", False), ("../qwen2_vl", False)):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
        assert runtime.knows(tmp_path) is known
    assert runtime.load_config(MODEL_PATH)["model_type"]


def test_mlx_vlm_is_imported_only_when_needed():
    for node in ast.parse(inspect.getsource(runtime)).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            assert "mlx_vlm" not in ast.unparse(node)


def test_a_models_weights_and_its_processor_are_loaded(tmp_path, caplog):
    folder = write_vision_model(tmp_path / "llava", "llava")
    model, processor = runtime.load_model(folder), runtime.load_processor(folder)
    assert model.config.model_type == runtime.load_config(folder)["model_type"] == "llava"
    assert processor.tokenizer.convert_tokens_to_ids("<image>") == model.config.image_token_index
    assert "tested with" not in caplog.text
