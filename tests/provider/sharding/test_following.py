"""Another process's part of a model, which makes the passes that the first announces."""

import pytest
from mlx_lm.utils import load_model

from provider.caches.operations import Copy, Forward, Make
from provider.runtime.mlx import mx
from provider.sharding.following import FollowingModel
from tests.support.tiny_models import LLAMA, write_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    model, _ = load_model(write_model(tmp_path_factory.mktemp("llama") / "llama", LLAMA))
    return model


def test_it_reads_the_tokens_that_the_first_process_shares(model):
    given, asked = [[[20, 21, 22]], [[23]]], []

    def share(tokens):
        asked.append(tokens.shape)
        assert not mx.any(tokens).item()
        return mx.array(given[len(asked) - 1], mx.uint32)

    following = FollowingModel(share, model)
    following.follow([[Make(1)], [Forward(1, 1, 3, [], []), Forward(1, 1, 1, [], [])]])
    layers = following.caches.layers(1)
    assert asked == [(1, 3), (1, 1)]
    assert [layer.offset for layer in layers] == [4, 4]


def test_it_ends_with_what_is_announced(model):
    following = FollowingModel(lambda tokens: tokens, model)
    following.follow(iter([[Make(1)], [Copy(1, 2)]]))
    assert len(following.caches) == 2


def test_it_fails_with_what_can_not_be_done(model):
    with pytest.raises(KeyError):
        FollowingModel(lambda tokens: tokens, model).follow([[Copy(7, 8)]])
