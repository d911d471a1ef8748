"""How the processes of one model end together, and where they find one another."""

import json
import queue
import socket
from dataclasses import replace
from types import SimpleNamespace

import pytest

from provider.caches.operations import Make
from provider.sharding.ranks import (
    LOST,
    FollowingRank,
    LeadingRank,
    NoRanksError,
    Times,
    _rank_of,
    join,
    leader_address,
)
from tests.support.timeouts import TIMEOUT

TIMES = Times(beat=0.05, flush=0.0)
GROUP = SimpleNamespace(rank=lambda: 1, size=lambda: 2)


def pair():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        return one, listener.accept()[0]


class Scene:
    """Rank 0 and rank 1, each with its end of a connection; exits are noted."""

    def __init__(self):
        self.exits, self.errors = queue.SimpleQueue(), queue.SimpleQueue()
        self.mine, self.theirs = pair()
        self.leading = LeadingRank(GROUP, 1 << 30, self.exits.put, times=TIMES)
        self.leading.on_lost = self.errors.put
        self.leading.start({1: self.mine})

    def follow(self, **times):
        times = replace(TIMES, **times)
        self.following = FollowingRank(GROUP, self.theirs, self.exits.put, times=times)
        return self.following

    def error(self):
        return str(self.errors.get(timeout=TIMEOUT))

    def exit(self):
        return self.exits.get(timeout=TIMEOUT)


@pytest.fixture
def scene():
    scene = Scene()
    yield scene
    scene.leading.close()
    scene.theirs.close()


def test_what_is_done_is_announced_in_order(scene):
    announced = scene.follow().announced()
    scene.leading.journal.add(Make(1))
    scene.leading.tell()
    scene.leading.journal.add(Make(2))
    scene.leading.tell()
    assert [next(announced), next(announced)] == [[Make(1)], [Make(2)]]


def test_what_is_done_between_passes_is_announced_too(scene):
    scene.leading.journal.add(Make(1))
    assert next(scene.follow().announced()) == [Make(1)]


def test_the_others_end_with_the_first(scene):
    announced = scene.follow().announced()
    scene.leading.close()
    scene.leading.close()
    assert list(announced) == []
    assert scene.errors.empty()
    assert scene.exits.empty()


def test_a_lost_rank_ends_all_runs_with_an_error_and_then_the_process(scene):
    scene.theirs.close()
    assert "rank 1 is lost" in scene.error()
    assert scene.exit() == LOST


def test_a_rank_that_fails_says_why(scene):
    scene.follow().failed("no memory")
    assert "rank 1 has failed: no memory" in scene.error()
    assert scene.exit() == LOST


def test_a_failure_ends_the_process_once(scene):
    scene.leading.fail("one")
    scene.leading.fail("two")
    assert "one" in scene.error()
    assert scene.exit() == LOST
    assert scene.errors.empty()
    assert scene.exits.empty()


def test_a_process_exits_although_its_runs_can_not_be_ended(scene):
    def broken(error):
        raise RuntimeError("broken")

    scene.leading.on_lost = broken
    with pytest.raises(RuntimeError):
        scene.leading.fail("one")
    assert scene.exit() == LOST


def test_another_rank_exits_at_once_when_the_first_is_lost(scene):
    scene.follow()
    scene.mine.shutdown(socket.SHUT_RDWR)
    assert scene.exit() == LOST


def test_another_rank_that_hangs_exits_after_the_first_has_ended(scene):
    scene.follow(end=0.0)
    scene.leading.close()
    assert scene.exit() == 0


@pytest.mark.parametrize(
    ("shown", "rank"), [(b"k" * 16 + b"\0\0\0\2", 2), (b"x" * 20, None), (b"short", None)]
)
def test_only_who_shows_the_secret_is_let_in(shown, rank):
    one, other = pair()
    with one, other:
        one.sendall(shown)
        one.shutdown(socket.SHUT_WR)
        assert _rank_of(other, b"k" * 16) == rank


def test_the_first_ranks_address_is_what_mlx_launch_says(tmp_path):
    hosts = tmp_path / "hosts.json"
    hosts.write_text(json.dumps([["10.0.0.1:5000", "10.0.0.1:5001"], ["10.0.0.2:5000"]]))
    assert leader_address({"MLX_HOSTFILE": str(hosts)}) == "10.0.0.1"
    hosts.write_text(json.dumps([["[fe80::1]:5000"], ["[fe80::2]:5000"]]))
    assert leader_address({"MLX_HOSTFILE": str(hosts)}) == "fe80::1"
    assert leader_address({"MLX_JACCL_COORDINATOR": "192.168.0.1:9000"}) == "192.168.0.1"
    assert leader_address({"NCCL_HOST_IP": "10.1.1.1"}) == "10.1.1.1"
    assert leader_address({}) == socket.gethostname()


def test_a_process_that_was_not_launched_as_one_of_several_is_told_so():
    with pytest.raises(NoRanksError):
        join({})
