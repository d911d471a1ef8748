"""Models listed; what is pulled from a stand-in for the hub is in test_hub.py."""

import asyncio
import io

import pytest
from rich.console import Console

from gateway.commands.failure import ExitStatus, Failure
from gateway.commands.models import _argument, _context, _size, _state, list_models
from gateway.configuration.settings import Settings
from gateway.server.server import Gateway
from gateway.server.tokens import Token, Tokens, from_environment
from provider.scripted import ScriptedProvider
from tests.support.servers import running


@pytest.mark.parametrize(
    ("size", "said"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 << 30, "3.0 GiB")]
)
def test_a_size_is_said_in_the_largest_unit_that_fits(size, said):
    assert _size(size) == said


def test_a_models_state_says_whether_it_is_there_and_what_it_adapts():
    assert "loaded" in _state({"id": "a", "loaded": True})
    assert _state({"id": "a", "loaded": True}) != _state({"id": "a", "loaded": False})
    assert "base" in _state({"id": "a", "loaded": True, "base": "base"})


def test_a_context_that_is_unknown_is_left_out():
    assert _context({"context_window": None}) == ""
    assert "8192" in _context({"context_window": 8192})


def test_a_folder_is_served_by_what_is_in_it(tmp_path):
    with pytest.raises(Failure, match="owner/x"):
        _argument("owner/x", tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert _argument("owner/x", tmp_path) == "owner/x"


async def test_models_that_a_gateway_serves_are_listed(capsys):
    errors = io.StringIO()
    async with running(ScriptedProvider()) as gateway:
        await asyncio.to_thread(list_models, gateway.url, None, Console(file=errors))
    first = capsys.readouterr().out.splitlines()[0].split("\t")
    assert (first[0], first[-1]) == ("scripted", "8192 tokens")
    assert errors.getvalue() == ""


async def listed(url, token=None):
    """Return what is said of the gateway at an address, and not of models in the cache."""
    errors = io.StringIO()
    await asyncio.to_thread(list_models, url, token, Console(file=errors, width=200))
    return errors.getvalue()


@pytest.mark.parametrize("form", ["ws://{}/", "{}", "http://{}/v1/stream", "ws://{}/v1/stream"])
async def test_an_address_has_the_forms_that_the_chat_takes(form, capsys):
    async with running(ScriptedProvider()) as gateway:
        assert await listed(form.format(f"127.0.0.1:{gateway.port}")) == ""
    assert capsys.readouterr().out.startswith("scripted\t")


async def test_a_socket_file_is_an_address_too(capsys, tmp_path):
    async with Gateway(ScriptedProvider(), Settings(unix=str(tmp_path / "socket"))) as gateway:
        assert await listed(gateway.url) == ""
    assert capsys.readouterr().out.startswith("scripted\t")
    assert await listed(f"unix:{tmp_path / 'none'}") == f"no gateway at unix:{tmp_path / 'none'}\n"


async def test_what_is_no_address_is_one_clear_line():
    with pytest.raises(Failure, match=r"`http://\[x/` is no address") as caught:
        await listed("http://[x/")
    assert caught.value.status is ExitStatus.USAGE


async def test_the_token_of_an_address_is_used_and_not_shown(capsys):
    tokens = Tokens(from_environment("alice:secret", "TOKENS"))
    async with running(ScriptedProvider(), tokens) as gateway:
        assert await listed(f"{gateway.url}#token=secret") == ""
    assert capsys.readouterr().out.startswith("scripted\t")
    assert "secret" not in await listed("http://127.0.0.1:9/#token=secret")


def test_a_gateway_that_is_not_there_is_said_and_no_fault(capsys):
    errors = io.StringIO()
    list_models("http://127.0.0.1:9/", None, Console(file=errors))
    assert "127.0.0.1:9" in errors.getvalue()


async def test_a_gateway_that_refuses_the_token_is_a_failure():
    tokens = Tokens([Token("alice", "0" * 64)])
    async with running(ScriptedProvider(), tokens) as gateway:
        with pytest.raises(Failure, match="401") as caught:
            await asyncio.to_thread(list_models, gateway.url, "wrong", Console(file=io.StringIO()))
    assert caught.value.status is ExitStatus.UNAUTHORIZED
