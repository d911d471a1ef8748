"""A matcher, and what all copies of it share."""

import pytest

from provider.constraints.compiler import GrammarCompiler
from provider.constraints.matcher import COSTLY_S, MAX_LEXER_BYTES, PROVEN, SharedGrammar, reason_of
from provider.embedded import MODEL_PATH
from provider.models.loading import tokenizer_of

TOKENIZER = tokenizer_of(MODEL_PATH)


@pytest.fixture(scope="module")
def compiler():
    return GrammarCompiler(TOKENIZER, len(TOKENIZER))


def matcher_of(compiler, regex):
    return compiler.matcher({"type": "regex", "regex": regex})


def tokens_of(text):
    return TOKENIZER.encode(text, add_special_tokens=False)


@pytest.mark.parametrize("costly", [False, True])
def test_a_token_is_taken_with_and_without_the_interpreters_lock(compiler, costly):
    matcher = matcher_of(compiler, "x[ab]{4}")
    matcher.shared.costly = costly
    assert all(matcher.take(token) for token in tokens_of("xabab"))
    assert matcher.inner.is_stopped()
    assert not matcher.inner.is_error()


@pytest.mark.parametrize("costly", [False, True])
def test_a_token_that_is_not_allowed_is_not_taken(compiler, costly):
    matcher = matcher_of(compiler, "y[ab]{4}")
    matcher.shared.costly = costly
    (z,) = tokens_of("z")
    assert not matcher.take_if_allowed(z)
    assert not matcher.inner.is_error()
    assert not matcher.take(z)


def test_copies_are_in_places_of_their_own_and_share_a_lock(compiler):
    one = matcher_of(compiler, "z(ab|cd)")
    other, third = one.copy(), matcher_of(compiler, "z(ab|cd)")
    assert one.shared is other.shared is third.shared
    assert one.shared is not matcher_of(compiler, "z(ab|ce)").shared
    for matcher, text in ((one, "zab"), (other, "zcd"), (third, "zab")):
        assert all(matcher.take(token) for token in tokens_of(text))
        assert matcher.inner.is_accepting()


def test_a_grammar_is_trusted_after_many_cheap_masks_and_never_after_a_costly_one():
    shared = SharedGrammar()
    for _ in range(PROVEN):
        assert not shared.trusted
        shared.note(COSTLY_S / 2)
    assert shared.trusted
    shared.note(COSTLY_S * 2)
    shared.note(0.0)
    assert shared.costly
    assert not shared.trusted


def test_the_reason_of_a_failure_has_neither_tokens_nor_grammar(compiler):
    matcher = matcher_of(compiler, "secret")
    assert reason_of(matcher.inner) == ""
    matcher.inner.consume_token(tokens_of("z")[0])
    assert reason_of(matcher.inner)
    assert "secret" not in reason_of(matcher.inner)


def test_what_a_grammar_holds_grows_with_its_source_and_with_the_time_of_its_masks_up_to_a_limit():
    small, large = SharedGrammar(source=10), SharedGrammar(source=1 << 20)
    assert small.nbytes < 2 << 20 < 200 << 20 < large.nbytes
    before = small.nbytes
    small.note(0.1)
    assert before < small.nbytes < before + MAX_LEXER_BYTES
    assert not small.worn
    small.note(3600)
    assert small.nbytes == before + MAX_LEXER_BYTES
    assert small.worn
