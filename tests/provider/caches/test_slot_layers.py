"""A layer of slots gives a model offsets, masks, keys and values."""

import pytest

from provider.caches.slot_layers import GROWTH, Places, SlotArrays, SlotKVCache
from provider.runtime.mlx import mx
from tests.support.cache_rows import cache_of, keys_of, state_of


def layer_of(*rows):
    places = Places([len(row) for row in rows])
    return SlotKVCache.of([cache_of(list(row)) for row in rows], places), places


def step(layer, places, rows):
    counts, width = [len(row) for row in rows], max(map(len, rows))
    places.begin(counts, width)
    layer.begin(counts, ragged=False)
    keys = keys_of([[*row, *[0] * (width - len(row))] for row in rows])
    return layer.update_and_fetch(keys, keys)


def test_each_row_counts_its_own_positions():
    layer, places = layer_of([1, 2, 3], [4])
    assert layer.offset.tolist() == [3, 1]
    keys, values = step(layer, places, [[5], [6]])
    assert layer.offset.tolist() == [4, 2]
    assert keys[:, 0, :, 0].tolist() == [[1, 2, 3, 5], [4, 6, 0, 0]]
    assert mx.array_equal(keys, values)


def test_a_query_sees_its_own_row_up_to_itself():
    layer, places = layer_of([1, 2, 3], [4])
    places.begin([1, 1], 1)
    mask = layer.make_mask(1)
    assert mask[:, 0, 0].tolist() == [[True] * 4, [True, True, False, False]]


def test_a_window_hides_earlier_positions():
    layer, places = layer_of([1, 2, 3], [4])
    places.begin([1, 1], 1)
    mask = layer.make_mask(1, window_size=2)
    assert mask[:, 0, 0].tolist() == [[False, False, True, True], [True, True, False, False]]


@pytest.mark.parametrize(("rows", "width"), [([[], []], 1), ([[], []], 3), ([[1], [2]], 1)])
def test_rows_of_one_length_need_no_mask(rows, width):
    layer, places = layer_of(*rows)
    places.begin([width] * 2, width)
    assert layer.make_mask(width) == (None if width == 1 else "causal")
    assert layer.make_mask(width, return_array=True).shape == (2, 1, width, places.extent)


def test_a_mask_is_computed_once_for_all_layers():
    layer, places = layer_of([1, 2], [3])
    other = SlotKVCache(places)
    places.begin([1, 1], 1)
    assert layer.make_mask(1) is other.make_mask(1)


def test_slots_grow_by_many_positions_at_once():
    layer, places = layer_of([1], [2])
    for n in range(3):
        step(layer, places, [[n], [n]])
    assert layer.keys.shape[2] == GROWTH
    step(layer, places, [list(range(GROWTH)), [1]])
    assert layer.keys.shape[2] == 2 * GROWTH


def test_positions_that_only_the_longest_row_needed_are_dropped_with_it():
    layer, places = layer_of(list(range(GROWTH + 1)), [2])
    places.lengths = [1]
    layer.keep(mx.array([1]))
    assert layer.keys.shape == (1, 1, GROWTH, 1)


def test_an_empty_layer_can_be_joined():
    empty, places = layer_of([], [])
    other, _ = layer_of([7, 8])
    places.lengths = [0, 2]
    empty.put([1], other)
    assert empty.extract(1).keys[0, 0, :, 0].tolist() == [7, 8]
    assert empty.extract(0).keys is None
    nothing, _ = layer_of([])
    empty.put([0], nothing)
    assert empty.extract(1).offset == 2


def test_states_of_empty_rows_are_zeros():
    layer = SlotArrays.of([state_of(None), state_of(None)], Places([0, 0]))
    assert layer[0] is None
    assert layer.left_padding is None
    layer.put([1], SlotArrays.of([state_of(5)], Places([0])))
    assert layer[0].tolist() == [[0], [5]]
    layer.put([1], SlotArrays.of([state_of(None)], Places([0])))
    assert layer[0].tolist() == [[0], [0]]
    layer.append(SlotArrays.of([state_of(6)], Places([0])))
    assert (layer[0].tolist(), layer.rows) == ([[0], [0], [6]], 3)
    layer.keep(mx.array([2]))
    assert (layer[0].tolist(), layer.rows) == ([[6]], 1)
