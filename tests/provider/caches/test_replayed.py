"""KV caches with which is done what another process has done with its own."""

import pytest

from provider.caches.operations import (
    Copy,
    Extract,
    Forget,
    Forward,
    Gather,
    Join,
    Keep,
    Make,
    Trim,
)
from provider.caches.replayed import ReplayedCaches
from tests.support.cache_rows import cache_of, held, keys_of


class Replay:
    """Caches whose keys are the tokens that the next pass feeds."""

    def __init__(self):
        self.fed = []
        self.caches = ReplayedCaches(lambda: [cache_of([])], self._run)

    def _run(self, layers, rows, width):
        fed = self.fed.pop(0)
        assert (len(fed), len(fed[0])) == (rows, width)
        layers[0].update_and_fetch(keys_of(fed), keys_of(fed))

    def do(self, *operations):
        for operation in operations:
            self.caches.apply(operation)

    def read(self, number, tokens):
        """Make the caches of a sequence that holds these tokens."""
        self.fed.append([tokens])
        self.do(Make(number), Forward(number, 1, len(tokens), [], []))

    def tokens(self, number):
        return held(self.caches.layers(number)[0])


@pytest.fixture
def replay():
    return Replay()


def test_a_sequence_is_read_copied_and_cut(replay):
    replay.read(1, [5, 6, 7])
    replay.do(Copy(1, 2), Trim(2, 2))
    assert (replay.tokens(1), replay.tokens(2)) == ([5, 6, 7], [5])


def test_a_sequence_that_is_cut_short_keeps_few_positions(replay):
    replay.read(1, list(range(600)))
    replay.do(Copy(1, 2), Trim(2, 560))
    assert replay.tokens(2) == list(range(40))
    assert [replay.caches.layers(n)[0].keys.shape[2] for n in (1, 2)] == [768, 256]


def test_rows_decode_in_slots_and_leave_them(replay):
    replay.read(1, [5, 6, 7])
    replay.read(2, [8])
    replay.fed += [[[9], [9]], [[4], [0]]]
    replay.do(
        Gather([1, 2], 3, slots=True),
        Forward(3, 2, 1, [3, 1], [1, 1]),
        Forward(3, 2, 1, [4, 0], [1, 0]),  # the second slot was freed
        Extract(3, 0, 4),
    )
    assert replay.tokens(4) == [5, 6, 7, 9, 4]


@pytest.mark.parametrize("slots", [[1], []])
def test_a_row_joins_a_free_slot_or_is_appended(replay, slots):
    for number in (1, 2, 3):
        replay.read(number, [number] * number)
    replay.do(Gather([1, 2], 4, slots=True), Gather([3], 5, slots=True), Join(4, 5, slots))
    replay.do(Extract(4, 1 if slots else 2, 6), Extract(4, 0, 7))
    assert (replay.tokens(6), replay.tokens(7)) == ([3, 3, 3], [1])


def test_kept_rows_are_in_the_order_asked_for(replay):
    for number in (1, 2, 3):
        replay.read(number, [number] * number)
    replay.do(Gather([1, 2, 3], 4, slots=True), Keep(4, [2, 0]), Extract(4, 0, 5), Extract(4, 1, 6))
    assert (replay.tokens(5), replay.tokens(6)) == ([3, 3, 3], [1])


def test_padding_stays_in_no_row(replay):
    replay.do(Make(1), Make(2), Gather([1, 2], 3, slots=True))
    replay.fed.append([[5, 6, 7], [8, 0, 0]])
    replay.do(Forward(3, 2, 3, [0, 0], [3, 1]), Extract(3, 1, 4))
    assert replay.tokens(4) == [8]


def test_merged_rows_are_joined_and_kept(replay):
    for number in (1, 2, 3):
        replay.read(number, [number] * number)
    replay.do(
        Gather([1, 2], 4, slots=False),
        Gather([3], 5, slots=False),
        Join(4, 5, []),
        Keep(4, [0, 2]),
        Extract(4, 1, 6),
    )
    assert replay.tokens(6) == [3, 3, 3]


def test_caches_that_differ_from_the_first_process_are_noticed(replay):
    replay.read(1, [5, 6])
    with pytest.raises(RuntimeError, match="not those of the first"):
        replay.do(Gather([1], 2, slots=True), Forward(2, 1, 1, [3], [1]))


def test_what_is_forgotten_is_freed_and_can_not_be_named(replay):
    replay.do(Make(1), Forget(1))
    assert len(replay.caches) == 0
    with pytest.raises(KeyError):
        replay.do(Copy(1, 2))
