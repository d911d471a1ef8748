"""The processes of `serve --shard`, which have parts of one model; rank 0 has the gateway."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Mapping
from typing import Any

from gateway.commands.failure import ExitStatus, Failure
from gateway.commands.provider_start import load_failure
from gateway.configuration.sources import Value
from provider.interface import AbstractLLMError

__all__ = ["follow", "join_ranks"]

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
    from provider.sharding.ranks import NoRanksError, join  # noqa: PLC0415

    try:
        return join()
    except NoRanksError as error:
        hint = f"start it by `mlx.launch --hosts A,B -- mlx-gateway serve --shard {how}`"
        raise Failure(f"`--shard {how}`: {error}", hint, ExitStatus.USAGE) from error


def follow(rank: Any, values: Mapping[str, Value]) -> ExitStatus | None:
    """Do what rank 0 does until it ends, if this is another rank; else return None at once.

    Rank 0 ends in order at the first signal, and the others with it; a second one ends this at
    once. Raises Failure.
    """
    from provider.models import sharded  # noqa: PLC0415
    from provider.sharding.ranks import FollowingRank  # noqa: PLC0415

    if not isinstance(rank, FollowingRank):
        return None
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _note_signal)
    try:
        sharded.follow(rank, values["shard"].value, next(iter(values["model"].value), None))
    except AbstractLLMError as error:
        raise load_failure(error) from error
    return ExitStatus.OK


def _note_signal(number: int, _frame: Any) -> None:
    log.info("this rank ends when rank 0 does; a second signal ends it at once")
    for again in (signal.SIGINT, signal.SIGTERM):
        signal.signal(again, lambda *_: os._exit(ExitStatus.INTERRUPTED))
