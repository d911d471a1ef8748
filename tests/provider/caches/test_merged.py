"""Rows in mlx-lm's batched caches hold what each would hold alone."""

from mlx_lm.models.cache import RotatingKVCache

from provider.caches.merged import MergedCaches
from tests.support.cache_rows import cache_of, feed, keys_of, rows_of


def merged(*rows):
    return MergedCaches([[cache_of(list(row))] for row in rows])


def test_rows_keep_their_tokens_and_get_new_ones():
    caches = merged([1, 2, 3], [4])
    feed(caches, [[7], [8]])
    assert rows_of(caches) == [[1, 2, 3, 7], [4, 8]]


def test_padding_is_moved_to_the_left():
    caches = merged([1, 2], [3])
    feed(caches, [[4], [5, 6, 7]])
    feed(caches, [[8], [9]])
    assert rows_of(caches) == [[1, 2, 4, 8], [3, 5, 6, 7, 9]]


def test_joining_rows_are_appended():
    caches = merged([1])
    assert caches.join(merged([2, 3, 4], [5])) == [1, 2]
    assert len(caches) == 3
    feed(caches, [[6], [7], [8]])
    assert rows_of(caches) == [[1, 6], [2, 3, 4, 7], [5, 8]]


def test_only_the_kept_rows_remain():
    caches = merged([1], [2, 2], [3, 3, 3])
    caches.keep([0, 2])
    feed(caches, [[4], [5]])
    assert rows_of(caches) == [[1, 4], [3, 3, 3, 5]]


def test_windows_are_merged_too():
    rows = []
    for tokens in ([1, 2, 3], [4]):
        window = RotatingKVCache(8)
        window.update_and_fetch(keys_of([tokens]), keys_of([tokens]))
        rows.append([window])
    caches = MergedCaches(rows)
    feed(caches, [[5], [6]])
    extracted = [caches.extract(row)[0] for row in range(2)]
    assert [type(one) for one in extracted] == [RotatingKVCache] * 2
    assert [one.offset for one in extracted] == [4, 2]
