"""A connection between two processes of one model, and how one notices that the other is lost."""

import queue
import socket
import threading
from types import SimpleNamespace

import pytest

from provider.sharding.link import HEADER, Link
from tests.support.timeouts import TIMEOUT


class Side:
    def __init__(self, connected, **times):
        self.frames, self.losses = queue.SimpleQueue(), queue.SimpleQueue()
        self.link = Link(connected, self.frames.put, self.losses.put, **times)

    def frame(self):
        return self.frames.get(timeout=TIMEOUT)

    def loss(self):
        return self.losses.get(timeout=TIMEOUT)


@pytest.fixture
def connected():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
    with one, other:
        yield one, other


@pytest.fixture
def sides(connected):
    one, other = map(Side, connected)
    one.link.start()
    other.link.start()
    yield one, other
    one.link.close()
    other.link.close()


def test_frames_arrive_whole_and_in_order(sides):
    one, other = sides
    frames = [b"a", b"b" * 1_000_000, b"c"]
    for frame in frames:
        one.link.send(frame)
    other.link.send(b"back")
    assert [other.frame() for _ in frames] == frames
    assert one.frame() == b"back"


def test_what_is_sent_before_a_close_arrives_and_nobody_is_lost(sides):
    one, other = sides
    one.link.send(b"last")
    one.link.close()
    assert other.frame() == b"last"
    other.link.close()
    for side in sides:
        for thread in side.link._threads:
            thread.join(TIMEOUT)
            assert not thread.is_alive()
    assert one.losses.empty()


def test_a_process_that_ends_is_lost_once(connected):
    one = Side(connected[0])
    one.link.start()
    connected[1].close()
    assert one.loss()
    one.link._threads[0].join(TIMEOUT)
    assert one.losses.empty()


def test_a_connection_cut_within_a_frame_is_a_loss(connected):
    one = Side(connected[0])
    one.link.start()
    connected[1].sendall(HEADER.pack(10) + b"half")
    connected[1].close()
    assert one.loss()
    assert one.frames.empty()


def test_a_silent_process_is_lost(connected):
    one = Side(connected[0], silence_s=0.05)
    one.link.start()
    assert "silent" in one.loss()


def test_a_process_is_heard_although_this_machine_has_stood_still(connected):
    """After that, the time of silence is over before the other can send again."""
    one = Side(connected[0], silence_s=TIMEOUT)
    receive = one.link._socket.recv_into
    first = iter([TimeoutError])
    one.link._socket = SimpleNamespace(
        recv_into=lambda view: _raise(next(first, None)) or receive(view), close=lambda: None
    )
    connected[1].sendall(HEADER.pack(1) + b"a")
    one.link.start()
    assert one.frame() == b"a"
    assert one.losses.empty()
    one.link._closed.set()


def _raise(error):
    if error is not None:
        raise error


def test_a_process_that_says_nothing_but_lives_is_not_lost(connected):
    one, other = Side(connected[0], silence_s=TIMEOUT), Side(connected[1], beat_s=0.001)
    beats = threading.Event()
    exactly, count = one.link._exactly, iter(range(6))

    def counted(length):
        if next(count, None) is None:
            beats.set()
        return exactly(length)

    one.link._exactly = counted
    one.link.start()
    other.link.start()
    assert beats.wait(TIMEOUT)
    assert one.losses.empty()
    assert one.frames.empty()
    other.link.close()


def test_a_send_to_a_lost_process_is_a_loss_and_no_error(connected):
    one = Side(connected[0])
    connected[0].close()
    one.link.send(b"a")
    one.link.send(b"b")
    assert "takes nothing" in one.loss()
    assert one.losses.empty()


def test_small_frames_do_not_wait_for_one_another(sides):
    """With Nagle's algorithm, each second frame waits for the other side's delayed answer."""
    for side in sides:
        assert side.link._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
