"""Tokens: read from where they are kept, found, and read from what a client shows."""

import hashlib
from datetime import UTC, datetime, timedelta

import pytest

from gateway.server.tokens import (
    BadTokens,
    Token,
    Tokens,
    as_toml,
    from_environment,
    from_file,
    from_header,
    new_secret,
    text_of_file,
)

NOW = datetime(2026, 11, 23, tzinfo=UTC)


def digest(secret):
    return hashlib.sha256(secret.encode()).hexdigest()


def test_a_token_is_found_by_its_secret_until_it_expires():
    alice = Token("alice", digest("a"), NOW + timedelta(seconds=1))
    bob = Token("bob", digest("b"))
    tokens = Tokens([alice, bob])
    assert tokens.find("a", NOW) is alice
    assert tokens.find("b", NOW) is bob
    assert tokens.find("a", NOW + timedelta(seconds=1)) is None
    for wrong in (None, "", "c", digest("a"), "a" * 10_000, "\ud800"):
        assert tokens.find(wrong, NOW) is None


def test_a_file_that_is_not_utf_8_is_named_with_the_place():
    assert text_of_file("[tokens.é]".encode(), "t.toml") == "[tokens.é]"
    with pytest.raises(BadTokens, match=r"`t.toml` must be UTF-8, and its byte 2 is not"):
        text_of_file(b"ab\xe9", "t.toml")


def test_a_successor_has_the_same_secret_and_may_have_other_limits():
    alice = Token("alice", digest("a"), max_generations=5)
    for new, found in [
        (Token("alice", digest("a")), True),
        (Token("alice", digest("a"), NOW + timedelta(seconds=1), 3), True),
        (Token("alice", digest("a"), NOW), False),
        (Token("alice", digest("b")), False),
        (Token("bob", digest("a")), False),
    ]:
        assert Tokens([new]).successor(alice, NOW) is (new if found else None)
    assert Tokens([alice]).successor(None, NOW) is None


def test_a_new_token_is_read_back_from_the_lines_made_for_it():
    secret = new_secret()
    text = as_toml("alice", secret, NOW) + as_toml("b.o-b", "other", None)
    assert secret not in text
    assert from_file(text, "t.toml") == [
        Token("alice", digest(secret), NOW),
        Token("b.o-b", digest("other")),
    ]
    assert new_secret() != secret


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[tokens", "is not TOML"),
        ("[token.alice]", "nothing else"),
        ("tokens = 3", "nothing else"),
        ("[tokens.alice]", "`sha256` must be"),
        ('[tokens.alice]\nsha256 = "abc"', "`sha256` must be"),
        (f'[tokens.alice]\nsha256 = "{"A" * 64}"', "lower case"),
        (f'[tokens.alice]\nsha256 = "{"a" * 64}"\nexpires = 3', "`expires` must be a time"),
        (f'[tokens.alice]\nsha256 = "{"a" * 64}"\nsecret = "x"', "nothing else"),
        (f'[tokens."a b"]\nsha256 = "{"a" * 64}"', "name has"),
    ],
)
def test_a_file_that_is_wrong_says_where(text, said):
    with pytest.raises(BadTokens, match=said):
        from_file(text, "t.toml")


def test_a_token_may_have_its_own_limits():
    text = f'[tokens.alice]\nsha256 = "{"a" * 64}"\nmax_connections = 3\nmax_generations = 1'
    (token,) = from_file(text, "t.toml")
    assert (token.max_connections, token.max_generations) == (3, 1)
    with pytest.raises(BadTokens, match="`max_generations` must be a whole number"):
        from_file(text.replace("= 1", "= true"), "t.toml")


def test_two_tokens_of_one_name_are_refused():
    with pytest.raises(BadTokens, match="two tokens have the name `alice`"):
        Tokens([Token("alice", digest("a")), Token("alice", digest("b"))])


def test_tokens_of_the_environment():
    tokens = from_environment("alice:a bob:b:c", "T")
    assert tokens == [Token("alice", digest("a")), Token("bob", digest("b:c"))]
    assert from_environment("", "T") == []
    for wrong in ("alice", "alice:", ":secret", "a/b:secret"):
        with pytest.raises(BadTokens, match="`T`: item 1 must be") as caught:
            from_environment(wrong, "T")
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "secret"),
    [
        ([], None),
        (["Bearer abc"], "abc"),
        (["bearer  abc "], "abc"),
        (["Basic abc"], ""),
        (["Bearer"], ""),
        (["Bearer a", "Bearer b"], ""),
    ],
)
def test_the_header(values, secret):
    assert from_header(values) == secret
