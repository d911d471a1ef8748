"""A cluster of Ray on this machine, in a folder of its own, for tests that join it."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.timeouts import STARTING

STORE_BYTES = 80_000_000  # Ray wants no less
AGENTS = (
    "--dashboard-agent-grpc-port",
    "--dashboard-agent-listen-port",
    "--metrics-export-port",
    "--runtime-env-agent-port",
)
START = 5 * STARTING  # seconds; Ray starts seven processes, most of which import it


@contextmanager
def own_folder():
    """Have Ray keep what it writes in a folder that is removed, its token in the environment."""
    # In /tmp, because the path of a socket has at most 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", str(folder))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_raylet_start_wait_time_s", f"{START:.0f}")
        patch.setenv("RAY_agent_register_timeout_ms", f"{1000 * START:.0f}")
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def head_node(folder, **environment):
    """Start a head node on 127.0.0.1, yield its address, and end all that it has started.

    It gets the variables of `environment` too.
    """
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
        *("--node-ip-address", "127.0.0.1", "--port", "0", "--temp-dir", str(folder)),
        *("--num-cpus", "0", "--object-store-memory", str(STORE_BYTES)),
        *("--include-dashboard", "false", "--disable-usage-stats"),
        # A raylet gives its agents little time to choose their ports, and dies without them.
        *(word for flag, port in zip(AGENTS, free_ports(), strict=True) for word in (flag, port)),
    ]
    with (folder / "said").open("wb") as said:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            env={**os.environ, **environment},
        )
    try:
        yield _address_in(folder, process)
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STARTING)
        for left in processes(str(folder)):
            with suppress(ProcessLookupError):
                os.kill(left, signal.SIGKILL)
        process.wait()


def free_ports():
    """Return a free port for each agent, as text."""
    with ExitStack() as stack:
        taken = [stack.enter_context(socket.socket()) for _ in AGENTS]
        for one in taken:
            one.bind(("127.0.0.1", 0))
        return [str(one.getsockname()[1]) for one in taken]


def _address_in(folder, process):
    """Return the address that a head node has written once it runs."""
    end = time.monotonic() + START
    file = folder / "ray_current_cluster"
    while not (file.exists() and file.read_text()):
        assert process.poll() is None, (folder / "said").read_text()
        assert time.monotonic() < end, "the head node was not there in time"
        time.sleep(0.05)
    return file.read_text().strip()


def processes(part, where="cmdline"):
    """Return the processes in whose command, or `environ`, a text stands, by their ids."""
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit() and int(path.name) != os.getpid():
            try:
                if part.encode() in (path / where).read_bytes():
                    found.append(int(path.name))
            except OSError:  # it has ended
                continue
    return sorted(found)


def parent(process):
    """Return the id of a process' parent."""
    stat = Path(f"/proc/{process}/stat").read_text()
    return int(stat.rpartition(")")[2].split()[1])
