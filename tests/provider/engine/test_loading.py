"""The model of one engine: loaded, tried out, loaded again, freed."""

import logging
import threading
from collections import Counter
from functools import partial

import pytest

from provider.caches.prefix_cache import PrefixCache
from provider.caches.prefix_store import PrefixStore
from provider.engine.chunk_cost import ChunkCost
from provider.engine.loading import MAX_KEPT, KeptCosts, ModelSlot
from provider.engine.memory_pool import MemoryPool
from provider.engine.model import LoadedModel, LoadProgress
from provider.engine.pace import Pace
from provider.engine.prompt_reuse import PromptReuse
from provider.engine.shapes import NEW
from provider.interface import MemoryExceededError, ModelLoadingError
from provider.models.loading import load
from provider.runtime.mlx import active_memory, mx, tree_flatten
from provider.runtime.mlx_lm import KVCache
from provider.settings import EngineSettings
from tests.support.timeouts import TIMEOUT


def always():
    return True


def never():
    return False


@pytest.fixture(scope="module")
def small(light):
    return load(light)


SELF_TEST = 68  # tokens of its longest pass


def slot_of(loader, limit=1 << 40, **settings):
    own = ("open_store", "clock", "prepares", "costs")
    given = {name: settings.pop(name) for name in own if name in settings}
    reuse, pace = PromptReuse(PrefixCache(1 << 20)), Pace(0.1)
    memory, settings = MemoryPool(limit), EngineSettings(**settings)
    return ModelSlot("m", loader, settings, memory, reuse, pace, **given)


class Broken:
    """The model, whose forward passes raise while it is told so."""

    def __init__(self, model):
        self.model = model
        self.on = False

    def __call__(self, *arguments, **options):
        if self.on:
            raise RuntimeError("the device is lost")
        return self.model(*arguments, **options)

    def __getattr__(self, name):
        return getattr(self.model, name)


def with_model(loaded, model):
    return LoadedModel(**{**vars(loaded), "model": model})


def test_a_loaded_model_is_counted_and_its_speed_known(small):
    slot = slot_of(lambda: small)
    assert slot.load() == small.facts
    assert slot.admission.weights == small.weights
    assert slot.admission.budget.per_token > 0
    assert slot._pace._cost.known
    assert slot._pace._cost._contexts_timed  # so passes after other tokens were timed too
    assert len(slot.new_batch()) == 0
    slot.free()
    assert slot.model is None


def test_steps_are_handed_on_and_the_weights_reserved_before_they_are_read(small):
    held = []

    def loader():
        yield LoadProgress(0, 1000)
        held.append(slot.admission.weights)
        yield LoadProgress(500, 1000)
        return small

    slot = slot_of(loader)
    steps = list(slot.steps())
    assert [step.done for step in steps[:2]] == [0, 500]
    assert held == [1000]


def test_a_loaded_model_is_warmed_up_which_is_told_by_passes(small):
    slot = slot_of(lambda: small, max_batch=4, prepares=always)
    told = [step for step in slot.steps() if step.warming_up]
    assert [step.done for step in told] == list(range(1, len(told) + 1))
    assert len(told) >= 4
    assert all(step.total >= step.done for step in told)
    slot.free()


@pytest.mark.parametrize("few", ["on", "off"])
def test_without_a_warm_up_no_more_is_computed_than_a_trial(small, few):
    slot = slot_of(lambda: small, warmup=False, few_shapes=few)
    assert not [step for step in slot.steps() if step.warming_up]
    assert slot._reuse.shapes.few is (few == "on")
    slot.free()


def test_where_mlx_prepares_nothing_nothing_is_warmed_up(small):
    slot = slot_of(lambda: small, prepares=never)
    assert not [step for step in slot.steps() if step.warming_up]
    slot.free()


def test_a_warm_up_takes_no_memory_that_others_hold(small):
    slot = slot_of(lambda: small, limit=small.weights + (1 << 20), prepares=always)
    steps = slot.steps()
    first = next(step for step in steps if step.warming_up)
    assert first.done == 1
    assert slot._has_room(1, 16)
    assert not slot._has_room(1000, 2048)
    steps.close()
    slot.free()


class Recording:
    """The model, which notes how many tokens it reads in each pass; it can't read `fails`.

    Passes after other tokens, which `deep` counts, are not noted.
    """

    def __init__(self, model, fails=0):
        self.model, self.fails = model, fails
        self.read = []
        self.deep = 0

    def __call__(self, tokens, cache=None, **options):
        if cache is not None and cache[0].size() > 0 and tokens.shape[1] > 1:
            self.deep, self.size = self.deep + 1, tokens.shape[1]
        else:
            self.read.append(tokens.shape[1])
        options["cache"] = cache
        if tokens.shape[1] == self.fails:
            raise RuntimeError("no memory")
        return self.model(tokens, **options)

    def __getattr__(self, name):
        return getattr(self.model, name)

    def timed(self):
        """Return how often a prompt of each size was timed, the smallest first.

        The first pass of those after more and more tokens comes after none.
        """
        counts = Counter(n for n in self.read if n not in {1, 2, SELF_TEST})
        if self.deep:
            counts[self.size] -= 1
        return [counts[n] for n in sorted(counts)]


def test_loading_times_prompts_of_several_sizes_each_three_times(small):
    model = Recording(small.model)
    slot = slot_of(lambda: with_model(small, model), prepares=always)
    slot.load()
    assert set(model.timed()) == {3}
    assert model.deep >= 2  # which show what attention costs


class Slow(Recording):
    """The model, whose passes take `token_s` for each token, and `new_s` more at first."""

    def __init__(self, model, token_s, new_s=0.0):
        super().__init__(model)
        self.token_s, self.new_s, self.now = token_s, new_s, 0.0

    def __call__(self, tokens, **options):
        count = tokens.shape[1]
        self.now += self.token_s * count + self.new_s * (count not in self.read)
        return super().__call__(tokens, **options)


@pytest.mark.parametrize(
    ("token_s", "new_s", "passes"), [(0.1, 0.0, [1, 1]), (0.1, 1.0, [3, 3]), (1e-4, 0.0, [3, 3])]
)
def test_slow_passes_are_timed_once_if_their_tokens_explain_them(small, token_s, new_s, passes):
    model = Slow(small.model, token_s, new_s)
    slot = slot_of(
        lambda: with_model(small, model),
        warmup=False,
        clock=lambda: model.now,
        prepares=always,
    )
    list(slot.steps())
    assert model.timed()[:2] == passes
    assert bool(set(NEW) & set(model.read)) is (new_s > 0), "all else tells nothing of shapes"
    slot.free()


@pytest.mark.parametrize(("new_s", "passes"), [(0.0, [3, 1, 1]), (1.0, [3, 3, 3])])
def test_where_mlx_prepares_nothing_long_passes_are_timed_once(small, new_s, passes):
    """Those of 16 tokens are brief; nothing explains a second more."""
    model = Slow(small.model, 2e-4, new_s)
    slot = slot_of(lambda: with_model(small, model), clock=lambda: model.now, prepares=never)
    slot.load()
    assert model.timed()[:3] == passes
    slot.free()


def test_a_model_without_memory_for_a_long_prompt_is_loaded_all_the_same(small, caplog):
    slot = slot_of(lambda: with_model(small, Recording(small.model, fails=16)))
    with caplog.at_level(logging.WARNING):
        slot.load()
    # A pass over one token has told what there is to know.
    assert slot._pace._cost.known
    assert "can't be read" in caplog.text


def test_prompts_that_are_timed_are_no_longer_than_the_context(small):
    model = Recording(small.model)
    loaded = LoadedModel(**{**vars(small), "model": model, "context_window": 20})
    slot_of(lambda: loaded).load()
    assert 16 in model.read
    assert not [n for n in model.read if n > 16 and n != SELF_TEST]


def test_a_model_that_is_loaded_again_is_not_timed_again(small):
    costs = KeptCosts()
    first, again, quantised = (Recording(small.model) for _ in range(3))
    loaded = slot_of(lambda: with_model(small, first), costs=costs)
    loaded.load()
    reloaded = slot_of(lambda: with_model(small, again), costs=costs)
    reloaded.load()
    assert first.timed()
    assert again.timed() == []
    assert again.deep == 0
    assert reloaded._pace.budget(0) == loaded._pace.budget(0)
    reloaded._pace.prefilled(2048, 0, 60.0)  # what one of them learns the other doesn't
    assert reloaded._pace.cost.seconds(2048, 0) > loaded._pace.cost.seconds(2048, 0)
    slot_of(lambda: with_model(small, quantised), costs=costs, kv_bits=8, kv_group_size=32).load()
    assert quantised.timed()


def test_costs_are_kept_of_so_many_models_and_of_none_that_is_not_known_again(small):
    costs = KeptCosts()
    nameless = LoadedModel(**{**vars(small), "identity": ""})
    slot_of(lambda: nameless, costs=costs).load()
    assert len(costs) == 0
    for number in range(MAX_KEPT + 1):
        costs.keep(number, ChunkCost(), [])
    assert len(costs) == MAX_KEPT
    assert costs.find(0) is None
    assert costs.find(1) is not None


def test_a_model_without_room_is_refused_before_its_weights_are_read():
    def loader():
        yield LoadProgress(0, 1000)
        raise AssertionError("nothing is read")

    with pytest.raises(MemoryExceededError):
        slot_of(loader, limit=999).load()


def test_a_model_that_raises_can_not_be_loaded_and_says_why(small):
    broken = Broken(small.model)
    broken.on = True
    with pytest.raises(ModelLoadingError, match="the device is lost") as caught:
        slot_of(lambda: with_model(small, broken)).load()
    assert isinstance(caught.value.original_exception, RuntimeError)


def test_a_model_that_works_is_kept_and_a_broken_one_is_loaded_again(small):
    made = []

    def loader():
        made.append(Broken(small.model))
        return with_model(small, made[-1])

    slot = slot_of(loader)
    slot.load()
    assert len(slot.revived()) == 0
    assert len(made) == 1
    made[-1].on = True
    assert len(slot.revived()) == 0
    assert len(made) == 2


def test_a_model_is_freed_a_part_at_a_time(light, monkeypatch):
    monkeypatch.setattr("provider.engine.loading.FREED_AT_ONCE", 100_000)
    slot = slot_of(lambda: load(light))
    slot.load()
    for number in range(4):
        slot.prefixes.put("", [number] * 20, [filled(20_000), filled(20_000)])
    largest = max(array.nbytes for _, array in tree_flatten(slot.model.parameters))
    weights, kept, before = slot.admission.weights, slot.prefixes.nbytes, active_memory()
    freed = []
    for _ in slot.freeing():
        freed.append(before - active_memory())
        before = active_memory()
    assert sum(freed) >= weights + kept
    assert max(freed) <= 100_000 + largest


def filled(nbytes):
    cache = KVCache()
    cache.keys = mx.zeros((1, 1, 20, nbytes // 80))
    cache.values = mx.zeros((1, 1, 20, nbytes // 80))
    cache.offset = 20
    mx.eval(cache.keys, cache.values)
    return cache


def test_no_more_waits_for_the_disk_than_may_be_kept(small, tmp_path):
    slot = slot_of(lambda: small, prefix_cache_dir=str(tmp_path))
    slot.load()
    assert slot.prefixes.store.max_queued == slot.prefixes.max_bytes
    slot.free()


def test_what_was_read_is_found_in_its_folder_by_the_next_slot(small, tmp_path):
    slot = slot_of(lambda: small, prefix_cache_dir=str(tmp_path))
    slot.load()
    assert slot.prefixes.store is not None
    slot.free()
    slot.wait_for_disk()
    assert list(tmp_path.iterdir())


class FullQueue:
    """A store whose disk takes one more entry, and then no more."""

    def __init__(self):
        self.saved = []

    def save(self, tokens, caches, kind):
        if self.saved:
            return False
        self.saved.append(tokens)
        return True

    def close(self):
        pass


class SlowScan(PrefixStore):
    """A store that finds its files once it is told to."""

    def __init__(self, goes_on, *details):
        self.goes_on = goes_on
        super().__init__(*details)

    def _scan(self):
        assert self.goes_on.wait(TIMEOUT)
        return super()._scan()


def test_others_have_their_turns_while_a_slow_disk_is_searched(small, tmp_path):
    goes_on = threading.Event()
    opened = partial(SlowScan, goes_on)
    slot = slot_of(lambda: small, open_store=opened, prefix_cache_dir=tmp_path)
    steps = slot.steps()
    for _ in range(3):
        assert isinstance(next(steps), LoadProgress)
    assert slot.prefixes.store is None
    goes_on.set()
    assert all(isinstance(step, LoadProgress) for step in steps)
    assert slot.prefixes.store.opened(0)
    slot.free()
    slot.wait_for_disk()


@pytest.mark.parametrize(("entries", "lost"), [(1, 0), (3, 2)])
def test_kept_caches_that_are_lost_at_the_unloading_are_counted_in_the_log(
    small, caplog, entries, lost
):
    slot = slot_of(lambda: small)
    slot.load()
    slot.prefixes.store = FullQueue()
    for number in range(entries):
        slot.prefixes.put("", [number] * 20, slot.model.model.make_cache())
    with caplog.at_level(logging.INFO):
        slot.free()
    said = [line for line in caplog.messages if "that are lost" in line]
    assert [line.rpartition(" ")[2] for line in said] == [str(lost)] * bool(lost)
