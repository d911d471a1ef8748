"""Rows in slots hold what each would hold alone, while other rows join and leave."""

import random

import pytest

from provider.caches.slots import SlotCaches
from provider.runtime.mlx import mx
from tests.support.cache_rows import cache_of, feed, held, rows_of, state_of


def slots(*rows):
    return SlotCaches([[cache_of(list(row))] for row in rows])


def test_rows_keep_their_tokens_and_get_new_ones():
    caches = slots([1, 2, 3], [4], [])
    feed(caches, [[7], [8], [9]])
    assert rows_of(caches) == [[1, 2, 3, 7], [4, 8], [9]]


def test_padding_is_written_over_by_the_next_tokens():
    caches = slots([], [])
    feed(caches, [[1, 2, 3], [4]])
    feed(caches, [[5], [6]])
    assert rows_of(caches) == [[1, 2, 3, 5], [4, 6]]


def test_a_joining_row_gets_a_freed_slot():
    caches = slots([1, 2, 3], [4, 5])
    caches.free(0)
    assert caches.join(slots([9]), [0]) == [0]
    assert len(caches) == 2
    feed(caches, [[10], [6]])
    assert rows_of(caches) == [[9, 10], [4, 5, 6]]


def test_rows_that_find_no_free_slot_are_appended():
    caches = slots([1])
    assert caches.join(slots([2, 3], []), []) == [1, 2]
    assert rows_of(caches) == [[1], [2, 3], []]
    assert slots([]).join(slots([]), []) == [1]


def test_only_the_kept_rows_remain_in_the_given_order():
    caches = slots([1], [2, 2], [3, 3, 3])
    caches.keep([2, 0])
    feed(caches, [[4], [5]])
    assert rows_of(caches) == [[3, 3, 3, 4], [1, 5]]


def test_rows_grow_beyond_what_was_reserved():
    caches = slots([1], list(range(250)))
    for n in range(10):
        feed(caches, [[n], [n]])
    assert rows_of(caches) == [[1, *range(10)], [*range(250), *range(10)]]


def test_states_go_with_their_rows():
    rows = [[cache_of([1]), state_of(10, 0)], [cache_of([2]), state_of(20, 21)]]
    caches = SlotCaches(rows)
    caches.join(SlotCaches([[cache_of([3]), state_of(30, 0)]]), [])
    assert [caches.extract(row)[1][0].item() for row in range(3)] == [10, 20, 30]
    assert [caches.extract(row)[1][1].item() for row in range(3)] == [0, 21, 0]
    caches.free(1)
    caches.join(SlotCaches([[cache_of([4]), state_of(40, 41)]]), [1])
    caches.keep([1, 2])
    assert [caches.extract(row)[1][0].item() for row in range(2)] == [40, 30]
    assert rows_of(caches) == [[4], [3]]


def test_states_know_of_padding_while_there_is_some():
    caches = SlotCaches([[state_of(1)], [state_of(2)]])
    caches.begin([3, 1], 3)
    assert caches.layers[0].lengths.tolist() == [3, 1]
    caches.end()
    assert caches.layers[0].lengths is None
    caches.begin([1, 1], 1)
    assert caches.layers[0].lengths is None


@pytest.mark.parametrize("seed", range(5))
def test_a_batch_holds_what_each_row_would_hold_alone(seed):
    draw = random.Random(seed)
    caches, alone, free, token = slots([]), {0: []}, [], 0
    for _ in range(60):
        match draw.choice(["read", "read", "read", "join", "free", "take"]):
            case "read":
                counts = {row: draw.randint(1, 3) for row in alone}
                rows = []
                for row in range(len(caches)):
                    read = [token := token + 1 for _ in range(counts.get(row, 1))]
                    rows.append(read)
                    if row in alone:
                        alone[row] += read
                feed(caches, rows)
            case "join":
                token += 1
                (row,) = caches.join(slots([token]), free[:1])
                free = [one for one in free if one != row]
                alone[row] = [token]
            case "free" if len(alone) > 1:
                row = draw.choice(list(alone))
                caches.free(row)
                free.append(row)
                del alone[row]
            case "take":
                rows = list(alone)
                caches.keep(rows)
                alone, free = {at: alone[row] for at, row in enumerate(rows)}, []
    for row, tokens in alone.items():
        assert held(caches.extract(row)[0]) == tokens


def test_an_extracted_copy_does_not_change():
    caches = slots([1, 2], [3])
    (cache,) = caches.extract(0)
    mx.eval(cache.keys, cache.values)
    caches.free(0)
    caches.join(slots([8, 9]), [0])
    feed(caches, [[7], [7]])
    assert held(cache) == [1, 2]
