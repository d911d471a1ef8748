"""Grammars built by Lark, compiled and tried by llguidance."""

import pytest
from llguidance import LLMatcher
from llguidance.hf import from_tokenizer
from transformers import AddedToken, AutoTokenizer

from provider.embedded import MODEL_PATH
from provider.formats.lark import GAP, NUMBER, Lark

TOKENIZER = AutoTokenizer.from_pretrained(MODEL_PATH)
TOKENIZER.add_tokens([AddedToken("<|end|>", normalized=False)])
GUIDED = from_tokenizer(TOKENIZER)


def takes(lark, start, text):
    """Return whether the grammar that begins with these items accepts a whole text."""
    matcher = LLMatcher(GUIDED, LLMatcher.grammar_from_lark(lark.grammar(start)), log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    tokens = TOKENIZER.encode(text, add_special_tokens=False)
    return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()


def test_added_tokens_match_as_tokens_in_a_literal():
    lark = Lark(TOKENIZER)
    items = lark.literal('say "hi"<|end|>')
    assert items == f'"say \\"hi\\"" <[{lark.tokens["<|end|>"]}]>'
    assert takes(lark, items, 'say "hi"<|end|>')
    assert not takes(lark, items, 'say "hi"')


@pytest.mark.parametrize(
    ("text", "may"),
    [("a 7", True), ("a\n123", True), ("a7", True), ("a  7", False), ("a 1234", False)],
)
def test_a_template_has_placeholders_for_a_gap_and_a_number(text, may):
    lark = Lark(TOKENIZER)
    assert takes(lark, lark.literal(f"a{GAP}{NUMBER}"), text) is may


@pytest.mark.parametrize("end", ["<|end|>", "</x>"], ids=["token", "text"])
def test_a_text_goes_up_to_its_end_marker_and_matches_no_refused_pattern(end):
    lark = Lark(TOKENIZER)
    items = lark.text(end, but=["(?i:null)"])
    assert takes(lark, items, f"two\nlines < of it{end}")
    assert takes(lark, items, f"nullify{end}")
    assert not takes(lark, items, f"Null{end}")
    assert not takes(lark, items, "no end")
    assert not takes(lark, items, f"a{end}b{end}")


def test_references_of_a_part_point_into_the_whole_schema():
    whole = {
        "type": "object",
        "properties": {"n": {"$ref": "#/$defs/N"}},
        "$defs": {"N": {"type": "integer", "maximum": 9}},
    }
    lark = Lark(TOKENIZER)
    items = lark.json(whole["properties"]["n"], whole)
    assert takes(lark, items, "7")
    assert not takes(lark, items, "70")


def test_a_property_named_like_a_reference_is_not_one():
    schema = {"type": "object", "properties": {"$ref": {"const": 1}}, "required": ["$ref"]}
    lark = Lark(TOKENIZER)
    assert takes(lark, lark.json(schema, schema), '{"$ref": 1}')
