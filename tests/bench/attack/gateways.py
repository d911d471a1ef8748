"""Gateways to attack, each the `serve` command in a process of its own, and attackers in theirs."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import astuple, dataclass, field
from pathlib import Path

from gateway.server.tokens import as_toml, new_secret
from tests.bench.attack.hostile import Target
from tests.support.programs import GATEWAY, ROOT, Program
from tests.support.servers import Command

POLITE = ALICE, BOB, CAROL = "alice", "bob", "carol"
MALLORY, CAPPED = "mallory", "capped"
SECRETS = {name: new_secret() for name in (*POLITE, MALLORY, CAPPED)}
END_S = 20.0  # after which a gateway that was told to end is killed


def write_tokens(file, more=""):
    """Write a token file with all names; the capped one may have two generations."""
    entries = [as_toml(name, secret, None) for name, secret in SECRETS.items()]
    file.write_text("\n".join(entries) + f"max_generations = 2\n{more}")
    return file


def with_few_files(number):
    """Return Python's arguments for a gateway that may have so many files."""
    limit = f"resource.setrlimit(resource.RLIMIT_NOFILE, ({number}, {number}))"
    run = 'runpy.run_module("gateway", run_name="__main__", alter_sys=True)'
    return ("-c", f"import resource, runpy; {limit}; {run}")


def limited(limit):
    """Return the command in a new interpreter with a limit of the shell's `ulimit`."""
    script = f'ulimit {limit} && exec "$@"'
    return ["/bin/sh", "-c", script, "sh", sys.executable, *GATEWAY]


@dataclass
class Ended:
    """How a gateway ended after SIGTERM, or by itself."""

    status: int  # as Popen has it
    seconds: float
    log: str
    killed: bool  # because it did not end


@dataclass(frozen=True)
class Used:
    """Seconds of processor time that have been used so far."""

    loop: float  # the gateway's first thread, which runs its event loop
    engine: float  # its other threads
    trials: float  # its children, which try grammars
    attacker: float
    polite: float  # this process, in which the polite clients are

    def __sub__(self, other):
        both = zip(astuple(self), astuple(other), strict=True)
        return Used(*(max(0.0, mine - its) for mine, its in both))  # of a process that has ended

    def __add__(self, other):
        return Used(*(mine + its for mine, its in zip(astuple(self), astuple(other), strict=True)))

    @classmethod
    def now(cls, gateway, attacker):
        """Read the times of two processes, of which a part is 0 where it isn't counted."""
        loop = seconds_of(f"{gateway}/task/{gateway}")
        trials = sum(seconds_of(child) for child in children_of(gateway))
        own, polite = seconds_of(attacker), seconds_of(os.getpid())
        return cls(loop, seconds_of(gateway) - loop, trials, own, polite)


def seconds_of(process):
    """Return the processor time of a process, or of a thread `process/task/thread`, in seconds."""
    with suppress(OSError, ValueError, IndexError):  # it has ended, or this isn't Linux
        user, system = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
    return 0.0


def children_of(pid):
    """Return the ids of a process' children."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += map(int, task.read_text().split())
    return found


@dataclass
class Served:
    """One gateway that runs."""

    command: Command
    port: int
    tokens: dict[str, str] = field(default_factory=lambda: dict(SECRETS))

    @property
    def pid(self):
        return self.command.process.pid

    def target(self, seconds=5.0):
        return Target(self.port, self.tokens, seconds)

    def alive(self):
        return self.command.process.poll() is None

    def descriptors(self):
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    async def end(self, at_most=END_S):
        """Tell it to end, and return how it did."""
        begin = time.monotonic()
        self.command.process.send_signal(signal.SIGTERM)
        killed = False
        try:
            await asyncio.to_thread(self.command.process.wait, at_most)
        except subprocess.TimeoutExpired:
            killed = True
            kill_children(self.pid)
            self.command.process.send_signal(signal.SIGKILL)
        seconds = time.monotonic() - begin
        status, _, log = await asyncio.to_thread(self.command.finish)
        return Ended(status, seconds, log, killed)


def kill_children(pid):
    for child in children_of(pid):
        os.kill(child, signal.SIGKILL)


class NotStartedError(Exception):
    """A gateway ended before it served."""

    def __init__(self, status, said):
        super().__init__(f"it ended with {status}: {said}")
        self.status = status  # as Popen has it
        self.said = said


async def start(*arguments, **options):
    """Start a gateway, and return it once it serves; `options` are those of Command.

    Raises NotStartedError.
    """
    command = Command("--port", "0", "--log-level", "warning", *map(str, arguments), **options)
    try:
        address = await asyncio.to_thread(command.wait_for_address)
    except AssertionError as error:
        raise NotStartedError(command.process.returncode, str(error)) from error
    return Served(command, int(address.rstrip("/").rpartition(":")[2]))


class Attacker:
    """One attack in a process of its own, ready to begin."""

    def __init__(self, process, go, said, seconds, gateway):
        # Of an attack that makes several: which began when, what had been used then, and in the
        # end.
        self.began = []
        self.used = []
        self._gateway = gateway
        self._process = process
        self._go = go
        self._said = said
        self._seconds = seconds

    @classmethod
    async def ready(cls, name, served, seconds, *, nice=0, **more):
        given = {"port": served.port, "tokens": served.tokens, "seconds": seconds, **more}
        given["nice"] = nice  # how much less of a processor it gets than others that want it
        arguments = ["-m", "tests.bench.attack.attacks", name, json.dumps(given)]
        (stdin, go), (told, stdout) = os.pipe(), os.pipe()
        try:
            process = Program(arguments, [stdin, stdout, sys.stderr.fileno()], cwd=ROOT)
        finally:
            os.close(stdin)
            os.close(stdout)
        said = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(said), os.fdopen(told, "rb")
        )
        assert await said.readline() == b"ready\n", f"{name} could not begin"
        return cls(process, go, said, seconds, served.pid)

    async def attack(self):
        """Let it attack, and return how often it saw which answer."""
        os.write(self._go, b"go\n")
        told = {"died": 1}
        try:
            async with asyncio.timeout(self._seconds + 5):
                async for line in self._said:
                    told = json.loads(line)
                    self.used.append(Used.now(self._gateway, self._process.pid))
                    if "began" in told:
                        self.began.append((told["at"], told["began"]))
        except TimeoutError:
            return {"did not end": 1}
        finally:
            await self.close()
        return told

    async def close(self):
        os.close(self._go)
        self._process.send_signal(signal.SIGKILL)
        await asyncio.to_thread(self._process.wait)
