"""The cache without contents, which notes what is done with the caches beside it."""

import copy
import gc

import pytest

from provider.caches.kinds import (
    batching_of,
    can_be_drafted_over,
    can_be_quantised,
    can_be_stored,
    cost_of,
    is_always_trimmable,
    size_of,
    state_of,
    trim,
)
from provider.caches.merged import MergedCaches
from provider.caches.mirrored import MirroredCache
from provider.caches.operations import (
    Copy,
    Extract,
    Forget,
    Forward,
    Gather,
    Join,
    Journal,
    Keep,
    Make,
    Trim,
)
from provider.caches.slots import SlotCaches


@pytest.fixture
def journal():
    return Journal()


def sequences(journal, count):
    """Caches of sequences that have this layer alone."""
    found = [[MirroredCache.empty(journal)] for _ in range(count)]
    journal.take()
    return found


def test_it_costs_nothing_and_hinders_nothing_that_the_others_can(journal):
    cache = MirroredCache.empty(journal)
    assert size_of([cache]) == 0
    assert cost_of([cache], 100) == (0, 0.0)
    assert state_of(cache) == []
    assert is_always_trimmable([cache])


def test_its_caches_are_neither_stored_nor_quantised_nor_drafted_over(journal):
    caches = [MirroredCache.empty(journal)]
    assert not can_be_stored(caches)
    assert not can_be_quantised(caches)
    assert not can_be_drafted_over(caches)


def test_what_is_done_with_a_sequence_is_noted(journal):
    cache = MirroredCache.empty(journal)
    other = copy.deepcopy([cache])[0]
    trim([other], 3)
    other.trim(0)  # nothing
    assert journal.take() == [Make(1), Copy(1, 2), Trim(2, 3)]
    assert cache.forward(1, 7) == Forward(1, 1, 7, [], [])


def test_a_freed_cache_is_forgotten(journal):
    cache = MirroredCache.empty(journal)
    del cache
    gc.collect()
    assert journal.take() == [Make(1), Forget(1)]


def test_what_is_done_with_slots_is_noted(journal):
    one, two, three = sequences(journal, 3)
    mine, other = SlotCaches([one, two]), SlotCaches([three])
    mine.begin([2, 1], 2)
    (layer,) = mine.layers
    assert layer.forward(2, 2) == Forward(4, 2, 2, [0, 0], [2, 1])
    mine.end()
    mine.free(1)
    assert mine.join(other, [1]) == [1]
    mine.keep([1, 0])
    row = mine.extract(1)
    assert journal.take() == [
        Gather([1, 2], 4, slots=True),
        Gather([3], 5, slots=True),
        Join(4, 5, [1]),
        Keep(4, [1, 0]),
        Extract(4, 1, 6),
    ]
    assert row[0].number == 6


def test_a_pass_after_a_freed_slot_says_that_it_is_empty(journal):
    mine = SlotCaches(sequences(journal, 2))
    mine.begin([3, 4], 4)
    mine.free(0)
    mine.begin([0, 1], 1)
    assert mine.layers[0].forward(2, 1).starts == [0, 4]


def test_rows_that_find_no_slot_are_appended(journal):
    one, two = sequences(journal, 2)
    mine, other = SlotCaches([one]), SlotCaches([two])
    assert mine.join(other, []) == [1]
    assert journal.take()[-1] == Join(3, 4, [])


def test_what_is_done_with_merged_rows_is_noted(journal):
    one, two, three = sequences(journal, 3)
    mine, other = MergedCaches([one, two]), MergedCaches([three])
    (layer,) = mine.layers
    mine.begin([2, 1], 2)
    assert layer.forward(2, 2) == Forward(4, 2, 2, [], [2, 1])
    mine.end()
    mine.begin([1, 1], 1)
    assert layer.forward(2, 1) == Forward(4, 2, 1, [], [1, 1])
    mine.join(other)
    mine.keep([0, 2])
    mine.extract(1)
    assert journal.take()[:5] == [
        Gather([1, 2], 4, slots=False),
        Gather([3], 5, slots=False),
        Join(4, 5, []),
        Keep(4, [0, 2]),
        Extract(4, 1, 6),
    ]


def test_rows_are_batched_as_the_other_layers_can_be(journal):
    class Model:
        layers = ()

        def make_cache(self):
            return [MirroredCache.empty(journal)]

    assert batching_of(Model()).name == "SLOTS"
