"""Every class of row caches has the methods of RowCaches, and all hold the same."""

import inspect

import pytest

from provider.caches.merged import MergedCaches
from provider.caches.rows import RowCaches
from provider.caches.single import SingleRowCaches
from provider.caches.slots import SlotCaches
from provider.engine.speculative import SingleRowSettings, SpeculativeCaches
from tests.support.cache_rows import cache_of, feed, rows_of

WAYS = {
    "slots": lambda cache: SlotCaches([[cache]]),
    "merged": lambda cache: MergedCaches([[cache]]),
    "single": lambda cache: SingleRowCaches([cache]),
    "speculative": lambda cache: SpeculativeCaches([cache], SingleRowSettings()),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_row_holds_the_same_in_every_class(way):
    caches = WAYS[way](cache_of([1, 2]))
    feed(caches, [[3, 4]])
    feed(caches, [[5]])
    caches.keep([0])
    assert len(caches) == 1
    assert rows_of(caches) == [[1, 2, 3, 4, 5]]


@pytest.mark.parametrize("way", WAYS)
def test_every_class_has_the_methods_of_row_caches(way):
    caches = WAYS[way](cache_of([1]))
    for name, method in inspect.getmembers(RowCaches, inspect.isfunction):
        if name in {"__init__", "__subclasshook__", "_no_init_or_replace_init", "_proto_hook"}:
            continue
        wanted = list(inspect.signature(method).parameters)[1:]
        assert list(inspect.signature(getattr(caches, name)).parameters) == wanted
