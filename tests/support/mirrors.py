"""The two halves of a model in parts, in one process: what one does, the other does later."""

from collections import deque

from provider.caches.kinds import state_of
from provider.caches.operations import Journal, decode, encode
from provider.runtime.mlx import mx, tree_flatten
from provider.sharding.following import FollowingModel
from provider.sharding.leading import LeadingModel


class Mirrors:
    """A leading and a following half, both of the whole model, so that their caches are equal."""

    def __init__(self, model):
        self.journal = Journal()
        self.frames = deque()
        self.tokens = deque()
        self.failures = []
        self.leading = LeadingModel(
            model, self.journal, self.tell, self._shared, self.failures.append
        )
        self.following = FollowingModel(lambda _tokens: self.tokens.popleft(), model)

    def tell(self, _tokens=0):
        self.frames.append(encode(self.journal.take()))

    def _shared(self, tokens):
        self.tokens.append(tokens)
        return tokens

    def catch_up(self):
        """Do in the following half what the leading one has announced; return the operations."""
        self.tell()
        done = []
        while self.frames:
            operations = decode(self.frames.popleft())
            self.following.follow([operations])
            done += operations
        return done

    def same(self, layers):
        """Return whether caches of one sequence are the same in both halves."""
        *layers, mirror = layers
        self.catch_up()
        theirs = self.following.caches.layers(mirror.number)
        return len(layers) == len(theirs) and all(map(equal, layers, theirs))


def equal(one, other):
    """Return whether two caches of a layer hold the same, whatever room they have to spare."""
    ours, theirs = (dict(tree_flatten(_held(cache))) for cache in (one, other))
    return ours.keys() == theirs.keys() and all(
        ours[name].shape == theirs[name].shape
        and mx.allclose(ours[name], theirs[name], atol=1e-4).item()
        for name in ours
    )


def _held(cache):
    state = state_of(cache)
    arrays = [array for _, array in tree_flatten(state) if isinstance(array, mx.array)]
    length = cache.size() if hasattr(cache, "keys") else None
    return [array if length is None else array[..., :length, :] for array in arrays]
