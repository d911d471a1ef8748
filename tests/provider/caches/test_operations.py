"""Operations on KV caches as plain data."""

import pytest

from provider.caches import operations
from provider.caches.operations import Copy, Forget, Forward, Journal, Make, decode, encode

ALL = [
    operations.Make(1),
    operations.Copy(1, 2),
    operations.Trim(2, 5),
    operations.Gather([1, 2], 3, slots=True),
    operations.Keep(3, [1]),
    operations.Join(3, 4, [0, 2]),
    operations.Extract(3, 0, 5),
    operations.Forget(3),
    operations.Forward(3, 2, 16, [0, 4], [16, 3]),
]


def test_operations_are_read_as_they_were_written():
    assert decode(encode(ALL)) == ALL


def test_every_operation_is_in_this_test():
    assert {type(one) for one in ALL} == set(operations.Operation.__args__)


@pytest.mark.parametrize("data", [b"", b"\x91\x91\xa4Nope", encode(ALL)[:-1]])
def test_bytes_that_are_no_operations_are_refused(data):
    with pytest.raises(ValueError, match=r"."):
        decode(data)


def test_a_step_of_32_rows_takes_few_bytes():
    assert len(encode([Forward(3, 32, 1, list(range(1000, 1032)), [1] * 32)])) < 160


def test_a_journal_gives_each_operation_once_and_in_order():
    journal = Journal()
    journal.add(Make(journal.number()))
    journal.add(Copy(1, journal.number()))
    assert journal.take() == [Make(1), Copy(1, 2)]
    journal.add(Forget(1))
    assert journal.take() == [Forget(1)]
    assert journal.take() == []
