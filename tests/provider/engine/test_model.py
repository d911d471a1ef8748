"""What the engine asks of a model, and what one of mlx-lm's answers."""

import copy
from types import SimpleNamespace

import pytest
from mlx_lm.utils import load_model

from provider.engine.model import LoadedModel, TextModel, as_model
from provider.runtime.mlx import mx
from tests.support.tiny_models import LLAMA, write_model


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return load_model(write_model(tmp_path_factory.mktemp("model") / "llama", LLAMA))[0]


def test_a_text_model_is_called_as_it_is_and_needs_nothing_more(llama):
    model = as_model(llama)
    assert isinstance(model, TextModel)
    caches = model.make_cache()
    logits = model(mx.array([[1, 2, 3]]), cache=caches)
    assert logits.shape[:2] == (1, 3)
    assert [cache.offset for cache in caches] == [3] * LLAMA["num_hidden_layers"]
    assert model.chunk_extras([], [], []) == model.step_extras([]) == {}
    assert model.draft_extras(None, 1) == {}
    with pytest.raises(AssertionError, match="images"):
        model.embed(None)


def test_a_text_model_has_what_its_model_has_and_can_be_copied(llama):
    model = as_model(llama)
    assert model.layers is llama.layers
    assert copy.copy(model).model is llama


def test_a_model_that_answers_for_itself_is_left_as_it_is():
    model = SimpleNamespace(step_extras=lambda rows: {})
    assert as_model(model) is model
    assert as_model(as_model(model)) is model


def test_the_facts_are_what_other_threads_may_know(llama):
    loaded = LoadedModel(llama, None, 2048, 1536, trimmable=True)
    assert loaded.facts.context_window == 2048
    assert (loaded.facts.trimmable, loaded.facts.vocabulary) == (True, 1536)
    assert isinstance(loaded.model, TextModel)
