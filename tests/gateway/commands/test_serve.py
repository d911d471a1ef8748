"""How a gateway's process ends, from its first moment on."""

import asyncio
import os
import signal
from pathlib import Path

import pytest
from rich.console import Console

from gateway.commands.failure import ExitStatus
from gateway.commands.serve import Service
from gateway.configuration.sources import Value
from gateway.server.server import Gateway
from provider.scripted import ScriptedProvider
from tests.support.servers import TIMEOUT, Command, eventually, get, settings

PROC = Path("/proc/self/status")


def catches_sigterm(process):
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    caught = next(line.split()[1] for line in lines if line.startswith("SigCgt"))
    return bool(int(caught, 16) & 1 << (signal.SIGTERM - 1))


def imports_mlx(process):
    return "libmlx" in Path(f"/proc/{process.pid}/maps").read_text()


@pytest.mark.skipif(not PROC.exists(), reason="looks into the process through /proc")
@pytest.mark.parametrize("moment", [catches_sigterm, imports_mlx])
async def test_a_process_that_is_stopped_before_it_serves_says_so(moment):
    command = Command("--port", "0", fresh=True)
    await eventually(lambda: moment(command.process))
    status, out, err = command.finish(signal.SIGTERM)
    assert (status, out) == (ExitStatus.TERMINATED, "")
    assert err.splitlines() == ["stopped before it served"]


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
    values = {"model": Value((), "default"), "token_file": Value(None, "default")}
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
