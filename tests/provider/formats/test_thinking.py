"""The tokens that open and close a model's thinking."""

from transformers import AutoTokenizer

from provider.embedded import MODEL_PATH
from provider.formats.thinking import Thinking, tagged_thinking
from provider.models.loading import tokenizer_of


def test_thinking_between_tags_is_closed_by_its_end_marker():
    tokenizer = tokenizer_of(MODEL_PATH)
    start, end = (tokenizer.convert_tokens_to_ids(tag) for tag in ("<think>", "</think>"))
    assert tagged_thinking(tokenizer) == Thinking((start,), (end,), (end,))


def test_a_model_without_markers_does_not_think():
    tokenizer = AutoTokenizer.from_pretrained(MODEL_PATH)
    tokenizer.has_thinking = False
    thinking = tagged_thinking(tokenizer)
    assert thinking == Thinking()
    assert not any((thinking.start, thinking.end, thinking.closing, thinking.commentary))
