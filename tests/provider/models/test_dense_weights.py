"""Packed weights that become floats on a CPU, where there is memory for it."""

import logging

import numpy as np
import pytest
from mlx_lm.utils import load_model, quantize_model

from provider.models.dense_weights import become_dense, dense_room, float_bytes, is_packed, unpack
from provider.runtime.mlx import mx, on_cpu, tree_flatten
from tests.support.tiny_models import LLAMA, QWEN3_MOE, write_model


@pytest.fixture(params=[LLAMA, QWEN3_MOE], ids=["dense", "experts"])
def model(request, tmp_path):
    plain, config = load_model(write_model(tmp_path / "model", request.param))
    return quantize_model(plain, config, group_size=32, bits=4)[0]


def test_weights_may_take_half_of_what_is_free_unless_somebody_says_otherwise():
    assert dense_room("auto", 1000) == 500
    assert dense_room("off", 1000) == 0
    assert dense_room("on", 1000) > 1 << 50


def test_unpacked_weights_compute_the_same(model):
    assert is_packed(model)
    tokens, wanted = mx.array([[1, 2, 3]]), float_bytes(model)
    before = model(tokens)
    unpack(model)
    assert not is_packed(model)
    assert sum(array.nbytes for _, array in tree_flatten(model.parameters())) == wanted
    np.testing.assert_allclose(np.array(model(tokens)), np.array(before), atol=1e-4)


@pytest.mark.skipif(not on_cpu(), reason="only a CPU is slow with packed weights")
def test_the_log_says_what_becomes_of_the_weights(caplog):
    with caplog.at_level(logging.INFO):
        assert become_dense("small", 3 << 20, 4 << 20)
        assert not become_dense("large", 5 << 20, 4 << 20)
    assert caplog.messages == [
        "`small`: packed weights become float32, 3 MiB: faster on a CPU",
        "`large`: weights stay packed, which is slow on a CPU; as float32 they would take 5 MiB",
    ]
