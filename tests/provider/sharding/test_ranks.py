"""How the processes of one model end together, and where they find one another."""

import json
import queue
import signal
import socket
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from types import SimpleNamespace

import pytest

from provider.caches.operations import Make
from provider.runtime.mlx import mx
from provider.sharding.frames import Do, Load, Unload, encode
from provider.sharding.link import HEADER
from provider.sharding.ranks import (
    LOST,
    FollowingRank,
    LeadingRank,
    NoRanksError,
    Times,
    _accept_invitation,
    _bounded,
    _invite,
    _rank_of,
    _spread,
    join,
    leader_address,
)
from tests.support.timeouts import TIMEOUT

TIMES = Times(beat=0.05, flush=0.0, end=0.2)
GROUP = SimpleNamespace(rank=lambda: 1, size=lambda: 2)


def pair():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        return one, listener.accept()[0]


def until(holds):
    """Wait for what another thread does soon."""
    end = time.monotonic() + TIMEOUT
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.001)


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
    told = scene.follow().told()
    scene.leading.load()
    scene.leading.journal.add(Make(1))
    scene.leading.tell()
    scene.leading.journal.add(Make(2))
    scene.leading.tell()
    scene.leading.unload()
    assert list(islice(told, 4)) == [Load(), Do([Make(1)]), Do([Make(2)]), Unload()]


def test_what_is_done_between_passes_is_announced_too(scene):
    scene.leading.journal.add(Make(1))
    assert next(scene.follow().told()) == Do([Make(1)])


def test_the_others_end_with_the_first(scene):
    told = scene.follow().told()
    scene.leading.close()
    scene.leading.close()
    assert list(told) == []
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


def test_the_first_waits_for_what_the_others_have(scene):
    facts = {"mlx": "1", "the model's files as": "abc"}
    following = scene.follow()
    assert scene.leading.awaited == [1]
    following.has({**facts, "mlx": "2"})
    until(lambda: not scene.leading.awaited)
    assert scene.leading.difference(facts) == "rank 1 has mlx 2, and rank 0 has 1"
    assert scene.leading.difference({**facts, "mlx": "2"}) == ""


def test_a_rank_that_is_asked_to_end_asks_the_first(scene):
    asked = queue.SimpleQueue()
    scene.leading.on_leave = lambda: asked.put("end")
    scene.follow().leave()
    assert asked.get(timeout=TIMEOUT) == "end"
    assert scene.exits.empty()


@pytest.mark.parametrize("frame", [b"nonsense", encode(Load())])
def test_a_rank_that_can_not_be_understood_is_lost(scene, frame):
    scene.theirs.sendall(HEADER.pack(len(frame)) + frame)
    assert "rank 1 is lost: what it sends can't be used" in scene.error()
    assert scene.exit() == LOST


def test_another_rank_that_can_not_understand_the_first_exits(scene):
    frame = b"nonsense"
    scene.mine.sendall(HEADER.pack(len(frame)) + frame)
    scene.follow()
    assert scene.exit() == LOST


def test_a_pass_that_never_ends_ends_all_although_the_others_live(scene):
    scene.follow()
    scene.leading.watchdog = SimpleNamespace(overdue=lambda: 61.0)
    assert "a forward pass has not ended for 61 s" in scene.error()
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


def test_ranks_meet_where_the_first_invites_them_and_strangers_are_sent_away():
    invitation = Future()

    def tell(said):
        invitation.set_result(said)
        host, port, _ = json.loads(said)
        with socket.create_connection((host, port)) as stranger:
            stranger.sendall(b"x" * 20)
        return said

    with ThreadPoolExecutor(3) as threads:
        inviting = threads.submit(_invite, 3, "127.0.0.1", tell, TIMEOUT)
        others = [
            threads.submit(_accept_invitation, rank, lambda _: invitation.result(), TIMEOUT)
            for rank in (2, 1)
        ]
        found, others = inviting.result(TIMEOUT), [one.result(TIMEOUT) for one in others]
    assert {rank: one.getpeername() for rank, one in found.items()} == {
        2: others[0].getsockname(),
        1: others[1].getsockname(),
    }
    for one in [*found.values(), *others]:
        one.close()


def test_ranks_that_do_not_come_are_not_waited_for_without_end():
    with pytest.raises(OSError, match="timed out"):
        _invite(2, "127.0.0.1", lambda said: said, 0.01)


def test_what_the_first_rank_says_is_spread_by_a_collective():
    alone = mx.distributed.init()
    assert _spread(alone, b"hello") == b"hello"


def test_signals_end_a_process_that_waits_in_mlx():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with _bounded(TIMEOUT):
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


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
