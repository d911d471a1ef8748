"""How the processes of one model find one another."""

import json
import select
import signal
import socket
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from provider.runtime.mlx import mx
from provider.sharding.meeting import (
    NoRanksError,
    _accept_invitation,
    _bounded,
    _invite,
    _rank_of,
    _spread,
    join,
    leader_address,
)
from tests.support.timeouts import TIMEOUT


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
    one, other = socket.socketpair()
    with one, other:
        one.sendall(shown)
        one.shutdown(socket.SHUT_WR)
        assert _rank_of(other, b"k" * 16) == rank


def test_a_secret_that_comes_in_pieces_is_waited_for():
    one, other = socket.socketpair()
    with one, other, ThreadPoolExecutor(1) as thread:
        one.sendall(b"k" * 16)
        shown = thread.submit(_rank_of, other, b"k" * 16)
        # The rank is only sent when the secret has been taken.
        while select.select([other], [], [], 0)[0]:
            pass
        one.sendall(b"\0\0\0\2")
        assert shown.result() == 2


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
