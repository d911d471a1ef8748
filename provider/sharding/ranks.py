"""The processes that share one model: how they find one another, and how they end together.

`mlx.launch` starts the same command on each machine, and tells each its rank; mlx's own collectives
connect them. The process of rank 0 serves; it tells the others where it listens by a collective,
and has a `Link` to each beside them. A process that is lost ends all: rank 0 with an error for
every run, the others at once, since a collective that waits for it would wait for ever.
"""

from __future__ import annotations

import hmac
import json
import logging
import os
import queue
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from provider.caches.operations import Journal, Operation, decode, encode
from provider.interface import GenerationError
from provider.runtime.mlx import mx, smallest_limit
from provider.sharding.link import BEAT_S, SILENCE_S, Link

__all__ = ["FollowingRank", "LeadingRank", "NoRanksError", "Times", "join", "leader_address"]

KEY_BYTES = 16
INVITATION = 256  # bytes
END = b"end"
LOST = 1  # exit status

log = logging.getLogger(__name__)

Group = mx.distributed.Group
Exit = Callable[[int], object]


class NoRanksError(Exception):
    """The process was not started as one of several."""


@dataclass(frozen=True)
class Times:
    """Seconds that the processes of one model give each other."""

    meeting: float = 120.0  # until all must have connected
    beat: float = BEAT_S  # between two frames, at most
    silence: float = SILENCE_S  # without a frame, after which a process is lost
    flush: float = 1.0  # for errors to reach clients before the process exits
    end: float = 10.0  # for a process to end after rank 0 has


USUAL = Times()


class LeadingRank:
    """The process of rank 0, with its links to the others.

    `on_lost` is called with an error when another process is lost, before this one exits; it must
    end all runs.
    """

    def __init__(self, group: Group, room: int, exits: Exit = os._exit, *, times: Times = USUAL):
        self.group = group
        self.room = room  # bytes that the smallest process has for weights and KV caches
        self.journal = Journal()
        self.on_lost: Callable[[GenerationError], None] = lambda _error: None
        self._exit = exits
        self._times = times
        self._telling = threading.Lock()
        self._links: list[Link] = []
        self._ended = threading.Event()
        self._failing = threading.Lock()

    def start(self, connected: Mapping[int, socket.socket]) -> None:
        """Begin to watch the other processes, by rank."""
        for rank, one in connected.items():
            self._links.append(_link(one, self._told_by(rank), self._lost(rank), self._times))
        for link in self._links:
            link.start()
        threading.Thread(target=self._tell_at_leisure, name="shard-tell", daemon=True).start()

    def share(self, tokens: mx.array) -> mx.array:
        """Return the tokens of a forward pass as all processes get them."""
        return mx.distributed.all_sum(tokens, group=self.group)

    def tell(self) -> None:
        """Send to the other processes what the journal has."""
        with self._telling:
            operations = self.journal.take()
            if operations:
                frame = encode(operations)
                for link in self._links:
                    link.send(frame)

    def fail(self, reason: str) -> None:
        """End all runs with an error, then the process; the others then end by themselves."""
        if not self._failing.acquire(blocking=False) or self._ended.is_set():
            return
        log.critical("this model ends on all machines: %s", reason)
        try:
            self.on_lost(GenerationError(f"the model has lost a part of itself: {reason}"))
            time.sleep(self._times.flush)
        finally:
            self._exit(LOST)

    def close(self) -> None:
        """Let the other processes end; this one may go on without them. Idempotent."""
        if not self._ended.is_set():
            self._ended.set()
            for link in self._links:
                link.send(END)
                link.close()

    def _told_by(self, rank: int) -> Callable[[bytes], None]:
        return lambda said: self.fail(f"rank {rank} has failed: {said.decode(errors='replace')}")

    def _lost(self, rank: int) -> Callable[[str], None]:
        return lambda reason: self.fail(f"rank {rank} is lost: {reason}")

    def _tell_at_leisure(self) -> None:
        """Let caches be freed elsewhere that were freed here, while there is no forward pass."""
        while not self._ended.wait(self._times.beat):
            self.tell()


class FollowingRank:
    """A process of another rank, with its link to that of rank 0."""

    def __init__(
        self,
        group: Group,
        connected: socket.socket,
        exits: Exit = os._exit,
        *,
        times: Times = USUAL,
    ):
        self.group = group
        self._exit = exits
        self._times = times
        self._announced: queue.SimpleQueue[list[Operation] | None] = queue.SimpleQueue()
        self._link = _link(connected, self._take, self._lost, times)
        self._link.start()

    @property
    def rank(self) -> int:
        """The rank of this process."""
        return int(self.group.rank())

    def share(self, tokens: mx.array) -> mx.array:
        """Return the first process's tokens for the next forward pass; those given are all 0."""
        return mx.distributed.all_sum(tokens, group=self.group)

    def announced(self) -> Iterator[list[Operation]]:
        """Yield what the first process announces, until it ends."""
        while (operations := self._announced.get()) is not None:
            yield operations

    def failed(self, reason: str) -> None:
        """Tell the first process why this one ends."""
        self._link.send(reason.encode())
        self._link.close()

    def _take(self, frame: bytes) -> None:
        if frame != END:
            self._announced.put(decode(frame))
            return
        self._link.close()
        self._announced.put(None)
        # The process may be waiting in a collective that the first one takes no part in any more.
        ending = threading.Timer(self._times.end, self._exit, (0,))
        ending.daemon = True
        ending.start()

    def _lost(self, reason: str) -> None:
        log.critical("rank 0 is lost, so rank %d ends: %s", self.rank, reason)
        self._exit(LOST)


def _link(
    connected: socket.socket,
    take: Callable[[bytes], None],
    lost: Callable[[str], None],
    times: Times,
) -> Link:
    return Link(connected, take, lost, beat_s=times.beat, silence_s=times.silence)


def join(environ: Mapping[str, str] = os.environ) -> LeadingRank | FollowingRank:
    """Connect this process to the others that `mlx.launch` has started.

    Raises NoRanksError if it has not, or the others can't be reached.
    """
    try:
        group = mx.distributed.init(strict=True)
    except RuntimeError as error:
        raise NoRanksError(str(error)) from error
    if group.size() == 1:
        raise NoRanksError("there is only one process")
    late = threading.Timer(USUAL.meeting, _give_up)
    late.daemon = True
    late.start()
    try:
        rooms = mx.distributed.all_gather(mx.array([smallest_limit().room / 2**20]), group=group)
        room = int(min(rooms.tolist())) << 20  # type: ignore[type-var, arg-type]
        if group.rank() == 0:
            leader = LeadingRank(group, room)
            leader.start(_invite(group, leader_address(environ)))
            return leader
        return FollowingRank(group, _accept_invitation(group))
    except (OSError, RuntimeError, ValueError) as error:
        raise NoRanksError(str(error)) from error
    finally:
        late.cancel()


def leader_address(environ: Mapping[str, str]) -> str:
    """Return the address of rank 0 that other machines know, as `mlx.launch` has it."""
    if hosts := environ.get("MLX_HOSTFILE"):
        (first, *_), *_ = json.loads(Path(hosts).read_text("utf-8"))
        return str(first).rpartition(":")[0].strip("[]")
    if coordinator := environ.get("MLX_JACCL_COORDINATOR"):
        return coordinator.rpartition(":")[0].strip("[]")
    return environ.get("NCCL_HOST_IP") or socket.gethostname()


def _give_up() -> None:
    log.critical("the processes of this model have not found one another in %d s", USUAL.meeting)
    os._exit(LOST)


def _invite(group: Group, host: str) -> dict[int, socket.socket]:
    """Tell the others where rank 0 listens, with a secret, and return their connections by rank."""
    key = secrets.token_bytes(KEY_BYTES)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener:
        listener.settimeout(USUAL.meeting)
        invitation = json.dumps([host, listener.getsockname()[1], key.hex()]).encode()
        _spread(group, invitation)
        found: dict[int, socket.socket] = {}
        while len(found) < group.size() - 1:
            connected, _ = listener.accept()
            rank = _rank_of(connected, key)
            if rank is None:
                connected.close()
            else:
                found[rank] = connected
    return found


def _rank_of(connected: socket.socket, key: bytes) -> int | None:
    """Return the rank that a connection shows with the secret, None if it doesn't."""
    connected.settimeout(5.0)
    with suppress(OSError):
        shown = connected.recv(KEY_BYTES + 4, socket.MSG_WAITALL)
        if hmac.compare_digest(shown[:KEY_BYTES], key):
            return int.from_bytes(shown[KEY_BYTES:], "big")
    return None


def _accept_invitation(group: Group) -> socket.socket:
    host, port, key = json.loads(_spread(group, b""))
    connected = socket.create_connection((host, port), timeout=USUAL.meeting)
    connected.sendall(bytes.fromhex(key) + int(group.rank()).to_bytes(4, "big"))
    return connected


def _spread(group: Group, said: bytes) -> bytes:
    """Return what rank 0 says; the others say nothing."""
    spread = mx.distributed.all_sum(mx.array(list(said.ljust(INVITATION, b"\0"))), group=group)
    return bytes(spread.tolist()).rstrip(b"\0")  # type: ignore[arg-type]
