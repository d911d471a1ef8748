import asyncio
import hashlib
import zlib

import pytest
from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode

from gateway.server.inflating import LARGE, SLICE, Deflate, Inflation, Packed, Slices

NOISE = hashlib.shake_128(b"").digest(5 * SLICE)


def sender():
    return zlib.compressobj(wbits=-12)


def packed(data, by=None, *, end=True, opcode=Opcode.TEXT):
    by = by or sender()
    small = by.compress(data) + by.flush(zlib.Z_SYNC_FLUSH)
    return Packed(opcode, small[:-4] if end else small, end)


def deflate(*, keeps=True):
    return Deflate(not keeps, not keeps, 12, 12)


def inflated(extension, frame, max_size=2**30):
    """Return the frame, and in how many slices it came."""
    inflation, steps = Inflation(extension, frame, max_size), 1
    while (done := inflation.step()) is None:
        steps += 1
    return done, steps


@pytest.mark.parametrize("data", [b"", b"x", b"x" * SLICE, b"x" * (SLICE + 1), NOISE])
@pytest.mark.parametrize("keeps", [True, False])
def test_what_was_sent_comes_out_in_slices(data, keeps):
    frame, steps = inflated(deflate(keeps=keeps), packed(data))
    assert (type(frame), frame.opcode, frame.fin) == (Frame, Opcode.TEXT, True)
    assert frame.data == data
    assert steps <= len(data) // SLICE + 3  # what goes in is sliced, too


def test_a_bomb_takes_a_slice_for_each_part_of_what_it_becomes():
    frame = packed(bytes(100 * SLICE))
    assert len(frame.data) < 2 * SLICE
    assert inflated(deflate(), frame)[1] >= 100


@pytest.mark.parametrize("keeps", [True, False])
def test_large_messages_are_sent_as_they_are(keeps):
    ours, theirs = deflate(keeps=keeps), PerMessageDeflate(not keeps, not keeps, 12, 12)
    for size in (LARGE, LARGE + 1, LARGE):
        sent = ours.encode(Frame(Opcode.TEXT, b"x" * size))
        assert sent.rsv1 is (size <= LARGE)
        assert (len(sent.data) < size) is sent.rsv1
        assert theirs.decode(sent).data == b"x" * size


def test_messages_in_parts_and_the_dictionary_go_on():
    extension, by = deflate(), sender()
    parts = [packed(b"abc" * 50, by, end=False), packed(b"abc" * 50, by, opcode=Opcode.CONT)]
    whole = b"".join(bytes(inflated(extension, part)[0].data) for part in parts)
    assert whole == b"abc" * 100
    again = packed(b"abc" * 100, by)
    assert len(again.data) < 16  # it refers to what was sent before
    assert inflated(extension, again)[0].data == whole


@pytest.mark.parametrize("size", [10, SLICE, 3 * SLICE])
def test_the_largest_size_is_allowed_and_one_byte_more_is_not(size):
    assert len(inflated(deflate(), packed(b"x" * size), size)[0].data) == size
    with pytest.raises(PayloadTooBig, match=f"limit of {size}"):
        inflated(deflate(), packed(b"x" * (size + 1)), size)


def test_what_cannot_be_inflated_is_a_protocol_error():
    with pytest.raises(ProtocolError, match="decompression"):
        inflated(deflate(), Packed(Opcode.TEXT, b"\xff" * 10))


def final(data):
    """Return a stream that is over, as RFC 7692 allows it within a message."""
    by = sender()
    return by.compress(data) + by.flush(zlib.Z_FINISH)


@pytest.mark.parametrize("cut", [None, 3, -1])
@pytest.mark.parametrize("data", [b"Hello", NOISE])
@pytest.mark.parametrize("keeps", [True, False])
def test_blocks_go_on_behind_a_final_one(keeps, data, cut):
    extension = deflate(keeps=keeps)
    for _ in range(2):
        sent = final(data) + b"\0"
        parts = [Packed(Opcode.TEXT, sent[:cut], fin=cut is None)]
        parts += [Packed(Opcode.CONT, sent[cut:])] * (cut is not None)
        whole = b"".join(bytes(inflated(extension, part)[0].data) for part in parts)
        assert whole == data
    more = Packed(Opcode.TEXT, final(data) + packed(b"more").data)
    assert inflated(extension, more)[0].data == data + b"more"
    assert inflated(extension, packed(data))[0].data == data


def test_a_second_final_block_is_refused():
    extension = deflate()
    for behind in (final(b"y"), NOISE):
        inflation = Inflation(extension, Packed(Opcode.TEXT, final(b"x") + behind * 99), 2**30)
        with pytest.raises(ProtocolError):
            while inflation.step() is None:
                assert not extension.decoder.unused_data, "it would be kept"


def test_frames_are_marked_where_their_message_is_compressed():
    extension = deflate()
    plain, ping = Frame(Opcode.TEXT, b"x"), Frame(Opcode.PING, b"")
    first = Frame(Opcode.TEXT, b"x", fin=False, rsv1=True)
    last = Frame(Opcode.CONT, b"x")
    assert extension.decode(plain) is plain
    for frame in (first, last):
        made = extension.decode(frame)
        assert (type(made), made.fin, made.rsv1) == (Packed, frame.fin, False)
        assert extension.decode(ping) is ping
    assert extension.decode(last) is last  # of no compressed message


def test_a_compressed_continuation_is_refused():
    extension = deflate()
    extension.decode(Frame(Opcode.TEXT, b"x", fin=False, rsv1=True))
    with pytest.raises(ProtocolError, match="RSV1"):
        extension.decode(Frame(Opcode.CONT, b"x", rsv1=True))


async def test_all_have_one_slice_in_a_turn_of_the_loop_together():
    slices, done = Slices(), []

    def steps(name, count):
        left = iter(range(count, 0, -1))

        def step():
            done.append(name)
            return next(left) == 1

        return step

    slices.add(steps("a", 3))
    slices.add(steps("b", 2))
    for turn in range(1, 6):
        await asyncio.sleep(0)
        assert len(done) == turn
    assert done == ["a", "b", "a", "b", "a"]
    slices.add(steps("c", 1))
    await asyncio.sleep(0)
    assert done[5:] == ["c"]


async def test_a_step_that_fails_ends_and_the_others_go_on():
    slices, done, failed = Slices(), [], []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: failed.append(context["exception"]))

    def broken():
        slices.add(lambda: done.append("added") or True)
        raise ValueError

    slices.add(broken)
    slices.add(lambda: done.append("other") or True)
    for turn in range(3):
        assert len(done) == max(0, turn - 1), "one in a turn"
        await asyncio.sleep(0)
    assert done == ["other", "added"]
    slices.add(lambda: done.append("later") or True)
    await asyncio.sleep(0)
    assert done[2:] == ["later"]
    assert [type(error) for error in failed] == [ValueError]
