"""How a gateway's process ends, from its first moment on."""

import asyncio
import contextlib
import errno
import gc
import hashlib
import io
import logging
import os
import re
import signal
import socket
import threading
import time
from dataclasses import replace

import pytest
from rich.console import Console

from gateway.client import connect
from gateway.commands.failure import ExitStatus, Failure
from gateway.commands.serve import Service, serve
from gateway.configuration.settings import ServeSettings, Settings
from gateway.configuration.sources import Value, resolve
from gateway.configuration.sources import settings as settings_of
from gateway.server import logs
from gateway.server.server import Gateway
from gateway.server.tokens import Tokens, from_file
from provider.errors import (
    GenerationError,
    HubUnreachableError,
    MemoryExceededError,
    ModelLoadingError,
    ModelNotFoundError,
)
from provider.scripted import Gate, Say, ScriptedProvider
from provider.settings import EngineSettings
from tests.support.servers import TIMEOUT, eventually, get, settings, stream_url

ALL = settings_of(ServeSettings, Settings, EngineSettings)


class NeverLoaded(ScriptedProvider):
    """A provider whose model takes for ever to load."""

    closed = False

    async def load(self):
        await asyncio.Event().wait()

    async def aclose(self):
        self.closed = True


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGTERM, ExitStatus.TERMINATED), (signal.SIGINT, ExitStatus.INTERRUPTED)],
)
async def test_a_signal_during_the_loading_frees_the_provider_and_is_told(capsys, number, status):
    provider = NeverLoaded()
    gateway = Gateway(provider, settings())
    none = {name: Value((), "default") for name in ("model", "replica", "replicas")}
    values = {**none, "token_file": Value(None, "default")}
    service = Service(gateway, values, Console(stderr=True))
    running = asyncio.create_task(service.run())
    await eventually(lambda: gateway._server is not None)
    assert (await get(gateway, "/healthz"))[0] == 200
    os.kill(os.getpid(), number)
    async with asyncio.timeout(TIMEOUT):
        assert await running is status
    assert provider.closed
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "stopped before it served\n")


def in_force(**flags):
    return resolve(ALL, flags={"port": "0", **flags})


@pytest.fixture
def errors():
    """What `serve` shows the user; what it sets of logging and garbage collection is undone."""
    root, own = logging.getLogger(), [logging.getLogger(n) for n in (*logs.OWN, logs.LIBRARY)]
    handlers, levels = root.handlers[:], [one.level for one in (root, *own)]
    gc.unfreeze()  # what the tests have frozen
    yield Console(file=io.StringIO())
    gc.freeze()
    root.handlers[:] = handlers
    for one, level in zip((root, *own), levels, strict=True):
        one.setLevel(level)


def test_serving_ends_cleanly_once_its_address_was_printed(errors):
    out = io.StringIO()

    def stop():
        while "Open http://127.0.0.1:" not in out.getvalue():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    stopping = threading.Thread(target=stop)
    with contextlib.redirect_stdout(out):
        stopping.start()
        assert serve(in_force(dev=True), "scripted", errors) is ExitStatus.OK
    stopping.join()
    assert "every origin on this machine may connect (`--dev`)" in errors.file.getvalue()
    assert gc.get_freeze_count() > len(gc.get_objects()) > 0  # what is imported is not walked


WRONG_TOKENS = "[tokens.alice]\nsha256 = 'no'\n"


@pytest.mark.parametrize(
    ("flags", "tokens", "said"),
    [
        ({"host": "0.0.0.0"}, None, "there are no tokens"),
        ({}, WRONG_TOKENS, "tokens.alice"),
        ({"token_file": "/nowhere/tokens.toml"}, None, "No such file"),
        ({"origins": "localhost:5173"}, None, "`localhost:5173` in `origins` has no scheme"),
        ({"browse": True, "unix": "/nowhere/socket"}, None, "no page on a socket file"),
        ({"dev": True, "unix": "/nowhere/socket"}, None, "`host` must be loopback"),
        ({"tls_key": "/nowhere/key.pem"}, None, "without `tls_cert`"),
        ({"tls_cert": "/nowhere/cert.pem"}, None, "`/nowhere/cert.pem`: No such file"),
    ],
)
def test_what_cannot_be_served_is_a_failure_with_a_hint(errors, tmp_path, flags, tokens, said):
    if tokens is not None:
        flags = {"token_file": str(tmp_path / "tokens.toml")}
        (tmp_path / "tokens.toml").write_text(tokens)
    browse = flags.pop("browse", False)
    with pytest.raises(Failure, match=said) as caught:
        serve(in_force(**flags), "scripted", errors, browse=browse)
    assert caught.value.status is ExitStatus.USAGE
    assert caught.value.hint


def test_settings_of_the_engine_that_do_not_go_together_are_a_failure(errors):
    with pytest.raises(Failure, match="pin"):
        serve(in_force(pin="nobody"), "mlx", errors)


class Unloadable(ScriptedProvider):
    """A provider whose model fails to load."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    async def load(self):
        raise self.error


def service(provider, token_file=None, tokens=None, **changes):
    """Return a gateway and what runs it."""
    gateway = Gateway(provider, settings(**changes), tokens)
    none = {name: Value((), "default") for name in ("model", "replica", "replicas")}
    values = {**none, "token_file": Value(token_file, "flag")}
    return gateway, Service(gateway, values, Console(file=io.StringIO()))


@pytest.mark.parametrize(
    ("error", "said", "status"),
    [
        (
            ModelNotFoundError("m", "no such folder"),
            "cannot get the model `m`: no such folder",
            ExitStatus.NO_MODEL,
        ),
        (
            HubUnreachableError("a/b", "the hub cannot be reached"),
            "cannot get the model `a/b`: the hub cannot be reached",
            ExitStatus.NO_MODEL,
        ),
        (ModelLoadingError("it is broken"), "it is broken", ExitStatus.NO_MODEL),
        (MemoryExceededError("`m` needs 9 MiB"), "`m` needs 9 MiB", ExitStatus.NO_MODEL),
        (GenerationError("it went wrong"), "it went wrong", ExitStatus.FAILED),
    ],
)
async def test_a_model_that_does_not_load_ends_the_process_with_a_status(error, said, status):
    _, one = service(Unloadable(error))
    with pytest.raises(Failure, match=re.escape(said)) as caught:
        await one.run()
    assert caught.value.status is status


async def test_an_address_that_cannot_be_had_is_a_failure(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as busy:
        _, one = service(ScriptedProvider())
        one._gateway.settings = replace(one._gateway.settings, port=busy.getsockname()[1])
        with pytest.raises(Failure, match="port already in use") as caught:
            await one.run()
        assert caught.value.status is ExitStatus.ADDRESS_IN_USE
    path = str(tmp_path / "none" / "socket")
    for changes, said in (
        ({"host": "192.0.2.1"}, f"`192.0.2.1:0`: {os.strerror(errno.EADDRNOTAVAIL)}"),
        ({"unix": path}, f"`{path}`: {os.strerror(errno.ENOENT)}"),
    ):
        _, one = service(ScriptedProvider(), **changes)
        with pytest.raises(Failure, match=f"^cannot listen on {said}$") as caught:
            await one.run()
        assert caught.value.status is ExitStatus.FAILED


def entry(name, token):
    return f"[tokens.{name}]\nsha256 = '{hashlib.sha256(token.encode()).hexdigest()}'\n"


async def test_a_hangup_signal_reads_the_tokens_again_and_keeps_the_old_ones_if_that_fails(
    tmp_path,
):
    file = tmp_path / "tokens.toml"
    file.write_text(entry("alice", "a"))
    tokens = Tokens(from_file(file.read_text(), str(file)))
    gateway, one = service(ScriptedProvider(), token_file=str(file), tokens=tokens)
    running = asyncio.create_task(one.run())
    await eventually(lambda: gateway._server is not None)
    file.write_text(entry("alice", "a") + entry("bob", "b"))
    os.kill(os.getpid(), signal.SIGHUP)
    await eventually(lambda: len(gateway.tokens) == 2)
    for wrong in (WRONG_TOKENS.encode(), b"", b"[tokens.caf\xe9]"):
        file.write_bytes(wrong)
        one._reload()
        assert len(gateway.tokens) == 2
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(TIMEOUT):
        assert await running in {ExitStatus.OK, ExitStatus.TERMINATED}


async def test_the_signals_of_a_lost_parent_stop_it_in_order_however_many_come(capsys):
    gate = asyncio.Event()
    script = [Say("begin "), Gate(gate), Say("end")]
    gateway, one = service(ScriptedProvider(script=script, tokens_per_second=None))
    serving = asyncio.create_task(one.run())
    await eventually(lambda: "Open http://" in capsys.readouterr().out)
    async with connect(stream_url(gateway)) as client, client.generate(prompt="hi") as run:
        await eventually(lambda: run.text)
        os.kill(os.getpid(), signal.SIGUSR1)
        await eventually(lambda: gateway._handshake.draining)
        os.kill(os.getpid(), signal.SIGUSR1)
        gate.set()
        await run.result()
    assert run.text == "begin end"
    async with asyncio.timeout(TIMEOUT):
        assert await serving is ExitStatus.OK
