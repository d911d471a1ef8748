"""Which models are divided among processes."""

from types import SimpleNamespace

import pytest

from provider.embedded import MODEL_PATH
from provider.interface import ModelLoadingError
from provider.runtime.mlx_lm import load_config
from provider.sharding.parts import load_part, why_indivisible
from tests.support.tiny_models import MAMBA, write_model


def group(size):
    """A group whose processes are never asked, because the model is refused before."""
    return SimpleNamespace(rank=lambda: 0, size=lambda: size)


def test_heads_that_processes_can_not_share_are_named():
    config = {"num_attention_heads": 9, "num_key_value_heads": 3}
    assert "num_attention_heads are 9" in why_indivisible(config, 2)
    assert "num_attention_heads are 9" in why_indivisible({"text_config": config}, 2)
    assert why_indivisible(config, 3) == ""
    assert why_indivisible({}, 2) == ""


def test_the_model_in_the_package_can_be_shared_by_two():
    assert why_indivisible(load_config(MODEL_PATH), 2) == ""


@pytest.mark.parametrize(
    ("how", "size", "said"),
    [
        ("tensor", 4, "which 4 processes can't share"),
        ("pipeline", 2, "does not support pipelining"),
    ],
)
def test_a_model_that_is_not_divided_so_is_refused(how, size, said):
    with pytest.raises(ModelLoadingError, match=said):
        load_part(MODEL_PATH, how, group(size))


def test_a_model_without_parts_is_refused(tmp_path):
    with pytest.raises(ModelLoadingError, match="does not support tensor"):
        load_part(write_model(tmp_path / "mamba", MAMBA), "tensor", group(2))


def test_a_file_is_refused(tmp_path):
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF")
    with pytest.raises(ModelLoadingError, match="GGUF file is not divided"):
        load_part(file, "tensor", group(2))
