"""The prefix index finds the same as a linear search."""

import itertools
from array import array

from hypothesis import given
from hypothesis import strategies as st

from provider.caches.prefix_index import PrefixIndex, PrefixIndexes, pack, shared

TOKENS = st.lists(st.integers(0, 2) | st.sampled_from([255, 256, 1 << 24]), max_size=8)
ENTRIES = st.lists(st.tuples(TOKENS.filter(len), st.booleans()), max_size=12)


def alike(one, other):
    pairs = zip(one, other, strict=False)
    return len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)))


def index_of(entries):
    index = PrefixIndex()
    for tokens, trimmable in entries:
        index.add(pack(tokens), (tuple(tokens), trimmable), trimmable=trimmable)
    return index


@given(TOKENS, TOKENS)
def test_shared_is_the_length_of_the_common_prefix(one, other):
    assert shared(pack(one), pack(other)) == alike(one, other)


@given(ENTRIES, TOKENS)
def test_the_longest_prefix_is_that_of_a_linear_search(entries, tokens):
    def given_by(entry):
        length = alike(entry[0], tokens)
        return length if entry[1] or length == len(entry[0]) else 0

    best = max(map(given_by, entries), default=0)
    found = index_of(entries).longest(pack(tokens))
    assert (0 if found is None else found[0]) == best
    if found is not None:
        assert given_by(found[1]) == best


@given(ENTRIES, TOKENS.filter(len))
def test_covering_and_covered_items_are_those_of_a_linear_search(entries, tokens):
    index = index_of(entries)
    covering = [
        one for one in entries if one[0] == tokens or (one[1] and one[0][: len(tokens)] == tokens)
    ]
    assert (index.covering(pack(tokens)) is not None) == bool(covering)
    covered = {(tuple(t), cut) for t, cut in entries if tokens[: len(t)] == t}
    assert set(index.covered_by(pack(tokens))) == covered


@given(ENTRIES)
def test_removed_items_are_not_found(entries):
    index = index_of(entries)
    for tokens, trimmable in entries:
        index.remove(pack(tokens), trimmable=trimmable)
        index.remove(pack(tokens), trimmable=trimmable)
    assert len(index) == 0
    assert all(index.longest(pack(tokens)) is None for tokens, _ in entries)


def test_a_key_has_an_index_while_there_is_an_item_in_it():
    indexes, tokens = PrefixIndexes(), pack([1, 2, 3])
    assert indexes.of("a").longest(tokens) is None
    assert len(indexes) == 0
    for item, trimmable in (("whole", False), ("cut", True)):
        indexes.add("a", tokens, item, trimmable=trimmable)
    assert indexes.of("a").longest(pack([1, 2, 4])) == (2, "cut")
    assert indexes.of("b").longest(tokens) is None
    indexes.remove("a", tokens, trimmable=True)
    assert indexes.of("a").longest(tokens) == (3, "whole")
    indexes.remove("b", tokens, trimmable=False)
    indexes.remove("a", tokens, trimmable=False)
    assert len(indexes) == 0


class Counted(bytes):
    """Packed tokens that count how often they are compared."""

    compared = 0

    def __lt__(self, other):
        Counted.compared += 1
        return bytes.__lt__(self, other)

    def __gt__(self, other):
        Counted.compared += 1
        return bytes.__gt__(self, other)


def test_a_search_compares_few_keys():
    index = PrefixIndex()
    for n in range(3000):
        index.add(pack([7, n, *range(20)]), n, trimmable=bool(n % 2))
    wanted = Counted(array("I", [7, 1501, *range(20), 9]).tobytes())
    assert index.longest(wanted) == (22, 1501)
    assert 0 < Counted.compared < 100
