"""How the processes that share one model find one another.

`mlx.launch` starts the same command on each machine, and tells each its rank; mlx's own collectives
connect them. By one of them rank 0 tells the others where it listens, with a secret; each of these
connects to it, so that there is a `Link` beside the collectives.
"""

from __future__ import annotations

import faulthandler
import hmac
import json
import logging
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from provider.runtime.mlx import mx, smallest_limit
from provider.sharding.ranks import LOST, USUAL, FollowingRank, Group, LeadingRank, Times

__all__ = ["NoRanksError", "join", "leader_address"]

KEY_BYTES = 16
RANK_BYTES = 4
INVITATION = 256  # bytes
GRACE_S = 5.0  # seconds that a process has to say why it ends
SHOWN_S = 5.0  # seconds in which a connection must show the secret
SIGNALS = (signal.SIGINT, signal.SIGTERM)

log = logging.getLogger(__name__)

Spread = Callable[[bytes], bytes]  # returns to all ranks what rank 0 says


class NoRanksError(Exception):
    """The process was not started as one of several."""


def join(
    environ: Mapping[str, str] = os.environ, times: Times = USUAL
) -> LeadingRank | FollowingRank:
    """Connect this process to the others that `mlx.launch` has started.

    Raises NoRanksError if it has not, or the others can't be reached.
    """
    late = threading.Timer(times.meeting, _give_up, (times.meeting,))
    late.daemon = True
    late.start()
    try:
        with _bounded(times.meeting):
            group = mx.distributed.init(strict=True)
        if group.size() == 1:
            raise NoRanksError("there is only one process")
        rooms = mx.distributed.all_gather(mx.array([smallest_limit().room / 2**20]), group=group)
        room = int(min(rooms.tolist())) << 20  # type: ignore[type-var, arg-type]
        spread = partial(_spread, group)
        if group.rank() == 0:
            leader = LeadingRank(group, room, times=times)
            host = leader_address(environ)
            leader.start(_invite(group.size(), host, spread, times.meeting))
            return leader
        connected = _accept_invitation(group.rank(), spread, times.meeting)
        return FollowingRank(group, connected, times=times)
    except (OSError, RuntimeError, ValueError) as error:
        raise NoRanksError(str(error)) from error
    finally:
        late.cancel()


@contextmanager
def _bounded(seconds: float) -> Iterator[None]:
    """Let signals end the process at once in the block, and itself after so many seconds.

    While mlx waits there for the other processes, no Python code runs, handlers of signals neither.
    """
    main = threading.current_thread() is threading.main_thread()
    kept = {one: signal.signal(one, signal.SIG_DFL) for one in SIGNALS} if main else {}
    faulthandler.dump_traceback_later(seconds + GRACE_S, exit=True, file=sys.__stderr__ or 2)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        for number, handler in kept.items():
            signal.signal(number, handler or signal.SIG_DFL)


def leader_address(environ: Mapping[str, str]) -> str:
    """Return the address of rank 0 that other machines know, as `mlx.launch` has it."""
    if hosts := environ.get("MLX_HOSTFILE"):
        (first, *_), *_ = json.loads(Path(hosts).read_text("utf-8"))
        return str(first).rpartition(":")[0].strip("[]")
    if coordinator := environ.get("MLX_JACCL_COORDINATOR"):
        return coordinator.rpartition(":")[0].strip("[]")
    return environ.get("NCCL_HOST_IP") or socket.gethostname()


def _give_up(seconds: float) -> None:
    log.critical("the processes of this model have not found one another in %d s", seconds)
    os._exit(LOST)


def _invite(size: int, host: str, spread: Spread, seconds: float) -> dict[int, socket.socket]:
    """Tell the others where rank 0 listens, with a secret, and return their connections by rank."""
    key = secrets.token_bytes(KEY_BYTES)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener:
        listener.settimeout(seconds)
        spread(json.dumps([host, listener.getsockname()[1], key.hex()]).encode())
        found: dict[int, socket.socket] = {}
        while len(found) < size - 1:
            connected, _ = listener.accept()
            rank = _rank_of(connected, key)
            if rank is None:
                connected.close()
            else:
                found[rank] = connected
    return found


def _rank_of(connected: socket.socket, key: bytes) -> int | None:
    """Return the rank that a connection shows with the secret, None if it doesn't."""
    connected.settimeout(SHOWN_S)
    with suppress(OSError):
        shown = b""
        while len(shown) < KEY_BYTES + RANK_BYTES:
            # A socket with a time limit may have less than it is asked for, whatever the flags.
            if not (piece := connected.recv(KEY_BYTES + RANK_BYTES - len(shown))):
                return None
            shown += piece
        if hmac.compare_digest(shown[:KEY_BYTES], key):
            return int.from_bytes(shown[KEY_BYTES:], "big")
    return None


def _accept_invitation(rank: int, spread: Spread, seconds: float) -> socket.socket:
    host, port, key = json.loads(spread(b""))
    connected = socket.create_connection((host, port), timeout=seconds)
    connected.sendall(bytes.fromhex(key) + rank.to_bytes(RANK_BYTES, "big"))
    return connected


def _spread(group: Group, said: bytes) -> bytes:
    """Return what rank 0 says; the others say nothing."""
    spread = mx.distributed.all_sum(mx.array(list(said.ljust(INVITATION, b"\0"))), group=group)
    return bytes(spread.tolist()).rstrip(b"\0")  # type: ignore[arg-type]
