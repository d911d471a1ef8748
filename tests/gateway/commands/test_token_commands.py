"""Tokens made, listed and revoked, by the command line in this process."""

import re

import pytest
from typer.testing import CliRunner

from gateway.commands import console, token_commands
from gateway.commands.failure import ExitStatus
from gateway.server.tokens import from_file


@pytest.fixture
def token(tmp_path, monkeypatch):
    """Run `mlx-gateway token` in a folder of its own; return status, output and errors."""
    monkeypatch.chdir(tmp_path)
    console.errors.cache_clear()

    def run(*arguments):
        done = CliRunner().invoke(token_commands.token_app, arguments)
        return done.exit_code, done.stdout, done.stderr

    yield run
    console.errors.cache_clear()


def names(path):
    return [token.name for token in from_file(path.read_text(), str(path))]


def test_tokens_are_made_listed_and_revoked(token, tmp_path):
    file = tmp_path / "tokens.toml"
    for name, *flags in [("alice",), ("b.o-b", "--days", "2")]:
        status, secret, _ = token("new", name, *flags)
        assert status == ExitStatus.OK
        assert secret.strip() not in file.read_text()
    file.write_text(file.read_text() + "max_generations = 7\n\n# the last\n")
    listed = [line.split("\t") for line in token("list")[1].splitlines()]
    assert [row[0] for row in listed] == ["alice", "b.o-b"]
    assert listed[0][1:] == ["never", "", ""]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d", listed[1][1])
    assert listed[1][3] == "7"
    status, out, said = token("revoke", "alice")
    assert (status, out) == (ExitStatus.OK, "")
    assert "kill -HUP" in said
    assert names(file) == ["b.o-b"]
    assert "# the last" in file.read_text()
    assert "stop a running gateway" in token("revoke", "b.o-b")[2]
    assert names(file) == []
    assert file.stat().st_mode & 0o077 == 0


def test_a_name_that_is_taken_is_said_with_the_way_out(token):
    token("new", "alice")
    status, out, said = token("new", "alice")
    assert (status, out) == (ExitStatus.USAGE, "")
    assert said.startswith("error: `tokens.toml` has a token `alice` already\n\nhint: ")
    assert "`mlx-gateway token revoke alice`" in said


@pytest.mark.parametrize("command", [("list",), ("revoke", "alice")])
def test_a_file_that_is_not_there_is_said(token, command):
    status, _, said = token(*command)
    assert status == ExitStatus.USAGE
    assert said.startswith("error: there is no file `tokens.toml`")


def test_a_token_that_is_not_there_cannot_be_revoked(token):
    token("new", "alice")
    status, _, said = token("revoke", "bob")
    assert status == ExitStatus.USAGE
    assert "has no token `bob`\n\nhint: it has `alice`" in said


def test_a_file_in_another_style_is_left_as_it_is(token, tmp_path):
    file = tmp_path / "tokens.toml"
    file.write_text(text := f"tokens.alice = {{ sha256 = '{'a' * 64}' }}\n")
    status, _, said = token("revoke", "alice")
    assert status == ExitStatus.FAILED
    assert "in an editor" in said
    assert file.read_text() == text


def test_a_token_that_has_expired_is_listed_as_such(token, tmp_path):
    (tmp_path / "tokens.toml").write_text(
        f"[tokens.old]\nsha256 = '{'a' * 64}'\nexpires = 2020-01-01T00:00:00Z\n"
    )
    assert token("list")[1] == "old\texpired\t\t\n"
