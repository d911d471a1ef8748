"""One row alone is the model's own caches, whatever they are."""

from provider.caches.single import SingleRowCaches
from tests.support.cache_rows import cache_of, feed, held


def test_a_single_row_is_the_caches_themselves():
    layers = [cache_of([1, 2])]
    caches = SingleRowCaches(layers)
    assert len(caches) == 1
    feed(caches, [[3]])
    caches.keep([0])
    assert caches.extract(0) is caches.layers is layers
    assert held(layers[0]) == [1, 2, 3]
