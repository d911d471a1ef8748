"""What a command does that is one of several ranks, and what it says when it is not."""

import logging
import os
import signal
from types import SimpleNamespace

import pytest

from gateway.commands.failure import ExitStatus, Failure
from gateway.commands.shards import follow, join_ranks
from gateway.configuration.sources import Value
from provider.interface import ModelLoadingError
from provider.models import sharded
from provider.sharding.ranks import FollowingRank


def values(shard, *, replica=(), model=("embedded",)):
    given = {"shard": shard, "replica": replica, "model": model}
    return {name: Value(value, "default") for name, value in given.items()}


@pytest.fixture
def rank():
    """A rank that has no link, and whose model is never loaded."""
    return object.__new__(FollowingRank)


@pytest.fixture(autouse=True)
def _handlers():
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def test_a_gateway_alone_joins_nobody():
    assert join_ranks(values(None)) is None


def test_a_process_without_others_is_told_how_to_start_them():
    with pytest.raises(Failure) as told:
        join_ranks(values("tensor"))
    assert told.value.status is ExitStatus.USAGE
    assert "mlx.launch" in told.value.hint


def test_a_gateway_in_front_of_replicas_has_no_ranks():
    with pytest.raises(Failure, match="can't be used with"):
        join_ranks(values("tensor", replica=("ws://one",)))


def test_rank_0_goes_on_to_serve():
    assert follow(SimpleNamespace(), values("tensor")) is None


def test_another_rank_follows_until_the_first_ends(monkeypatch, rank):
    asked = []
    monkeypatch.setattr(sharded, "follow", lambda *given: asked.append(given))
    assert follow(rank, values("pipeline")) is ExitStatus.OK
    assert asked == [(rank, "pipeline", "embedded")]


def test_another_rank_whose_part_can_not_be_loaded_says_why(monkeypatch, rank):
    def broken(*_):
        raise ModelLoadingError("no memory")

    monkeypatch.setattr(sharded, "follow", broken)
    with pytest.raises(Failure, match="no memory") as told:
        follow(rank, values("tensor"))
    assert told.value.status is ExitStatus.NO_MODEL


def test_the_first_signal_leaves_another_rank_to_the_first(monkeypatch, rank, caplog):
    def signalled(*_):
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(sharded, "follow", signalled)
    with caplog.at_level(logging.INFO):
        assert follow(rank, values("tensor")) is ExitStatus.OK
    assert "ends when rank 0 does" in caplog.text
