"""The processes of `serve --shard`, which have parts of one model; rank 0 has the gateway.

All end in order when one of them is asked to, or when `mlx.launch`, which has started them, is
gone: then it could neither pass on a signal nor start them again on the same ports.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import stat
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from gateway.commands.failure import ExitStatus, Failure
from gateway.commands.provider_start import load_failure
from gateway.configuration.sources import Value
from provider.interface import AbstractLLMError

__all__ = ["attend", "follow", "join_ranks"]

LAUNCHER_EVERY_S = 1.0  # seconds between looks whether `mlx.launch` lives

log = logging.getLogger(__name__)


def join_ranks(values: Mapping[str, Value]) -> Any:
    """Connect to the other processes that have parts of the model; return this one's rank.

    That is a LeadingRank or a FollowingRank, or None without the setting `shard`. Raises Failure.
    """
    how = values["shard"].value
    if how is None:
        return None
    if values["replica"].value:
        hint = "a model's ranks are a gateway of their own; name its address in `--replica`"
        raise Failure("`--shard` can't be used with `--replica`", hint, ExitStatus.USAGE)
    # Imported here because mlx takes a second to import, and most gateways are alone.
    from provider.sharding.meeting import NoRanksError, join  # noqa: PLC0415

    try:
        return join()
    except NoRanksError as error:
        hint = (
            f"start all ranks together, by `mlx.launch --hosts A,B -- mlx-gateway serve --shard "
            f"{how}`; its `--starting-port` is the first of their ports"
        )
        raise Failure(f"`--shard {how}`: {error}", hint, ExitStatus.USAGE) from error


def follow(rank: Any, values: Mapping[str, Value]) -> ExitStatus | None:
    """Do what rank 0 does until it ends, if this is another rank; else return None at once.

    The first signal asks rank 0 to end all in order; a second one ends this process at once.
    Raises Failure.
    """
    from provider.models import sharded  # noqa: PLC0415
    from provider.sharding.ranks import FollowingRank  # noqa: PLC0415

    if not isinstance(rank, FollowingRank):
        return None
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, partial(_leave, rank))
    # The terminal of a rank ends with `mlx.launch` or its network; rank 0 says what then happens.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        sharded.follow(rank, values["shard"].value, next(iter(values["model"].value), None))
    except AbstractLLMError as error:
        raise load_failure(error) from error
    return ExitStatus.OK


def _leave(rank: Any, _number: int, _frame: Any) -> None:
    for again in (signal.SIGINT, signal.SIGTERM):
        signal.signal(again, lambda *_: os._exit(ExitStatus.INTERRUPTED))
    log.info("asking rank 0 to end; a second signal ends this rank at once")
    rank.leave()


def attend(
    rank: Any,
    stop: Callable[[], object],
    standard_input: int = 0,
    every_s: float = LAUNCHER_EVERY_S,
) -> threading.Thread | None:
    """Let rank 0 call `stop`, on any thread, when another rank leaves or `mlx.launch` is gone.

    The latter shows at `standard_input`, a file descriptor, if it is a pipe or a terminal; then the
    thread that looks at it is returned, which ends with `mlx.launch`.
    """
    rank.on_leave = stop
    if rank.left.is_set():
        stop()
    try:
        kind = os.fstat(standard_input).st_mode
    except OSError:
        return None
    if not (stat.S_ISFIFO(kind) or os.isatty(standard_input)):
        return None
    work = partial(_watch_launcher, standard_input, every_s, stop)
    thread = threading.Thread(target=work, name="shard-launcher", daemon=True)
    thread.start()
    return thread


def _watch_launcher(standard_input: int, every_s: float, stop: Callable[[], object]) -> None:
    poll = select.poll()
    poll.register(standard_input, select.POLLIN)  # some systems tell of an end only beside input
    while not any(event & select.POLLHUP for _, event in poll.poll(0)):
        time.sleep(every_s)
    log.info("`mlx.launch` is gone, so all ranks end")
    stop()
