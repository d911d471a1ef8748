"""Gateways to attack, each the `serve` command in a process of its own, and attackers in theirs."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from gateway.server.tokens import as_toml, new_secret
from tests.support.programs import GATEWAY, ROOT
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


@dataclass
class Served:
    """One gateway that runs."""

    command: Command
    port: int
    tokens: dict[str, str] = field(default_factory=lambda: dict(SECRETS))

    @property
    def pid(self):
        return self.command.process.pid

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
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            os.kill(int(child), signal.SIGKILL)


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

    def __init__(self, process, seconds):
        self.began = []  # which attack began when, of one that makes several
        self._process = process
        self._seconds = seconds

    @classmethod
    async def ready(cls, name, served, seconds, seed=0):
        pipe = asyncio.subprocess.PIPE
        given = {"port": served.port, "tokens": served.tokens, "seconds": seconds, "seed": seed}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.bench.attack.attacks",
            name,
            json.dumps(given),
            stdin=pipe,
            stdout=pipe,
            cwd=ROOT,
        )
        assert await process.stdout.readline() == b"ready\n", f"{name} could not begin"
        return cls(process, seconds)

    async def attack(self):
        """Let it attack, and return how often it saw which answer."""
        self._process.stdin.write(b"go\n")
        told = {"died": 1}
        try:
            async with asyncio.timeout(self._seconds + 5):
                async for line in self._process.stdout:
                    told = json.loads(line)
                    if "began" in told:
                        self.began.append((told["at"], told["began"]))
                await self._process.wait()
        except TimeoutError:
            return {"did not end": 1}
        finally:
            await self.close()
        return told

    async def close(self):
        if self._process.returncode is None:
            self._process.kill()
        self._process.stdin.close()
        await self._process.wait()
