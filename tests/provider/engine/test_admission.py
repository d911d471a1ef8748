"""A run begins only with the memory that it may come to need; what is kept for later goes first."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from provider.caches.prefix_cache import Hit, PrefixCache
from provider.engine.admission import Admission
from provider.engine.memory_pool import RETRY_AFTER_S, MemoryPool
from provider.engine.memory_turn import MAX_PASSED
from provider.engine.messages import RunRequest
from provider.engine.rows import Parked
from provider.engine.shared_prompt import SharedPrompt, SharedPrompts
from provider.interface import MemoryExceededError, ResourceExceededError
from provider.options import GenerationOptions
from tests.support.cache_rows import cache_of

BYTES = 8  # of a token in `cache_of`, and 256 tokens are reserved at a time


@dataclass(eq=False)
class Row:
    """A row as far as its memory goes."""

    caches: list = field(default_factory=lambda: [cache_of(list(range(20)))])
    done: int = 20


@dataclass(eq=False)
class Run:
    """A run as far as its memory goes."""

    key: int
    request: RunRequest
    parked: Parked | None = None
    read_prefix: int | None = None
    taken_prefix: Hit | None = None
    client: str = ""


def run_of(key, tokens=256, row=None, constraint_bytes=0, client=""):
    options = GenerationOptions(max_tokens=tokens - 1)
    request = RunRequest([1], options, constraint_bytes=constraint_bytes)
    return Run(key, request, None if row is None else Parked(row, None), client=client)


@pytest.fixture
def make():
    def admission(limit, weights=0, pool=None, padding=lambda: 0):
        pool = pool or MemoryPool(limit)
        kept = []
        prefixes = PrefixCache(1 << 20)
        prompts = SharedPrompts()
        made = Admission(
            pool, weights, prefixes, lambda row, copy, done: kept.append(copy()), prompts, padding
        )
        made.learn(Row())
        made.enter()
        return SimpleNamespace(
            admission=made, prefixes=prefixes, prompts=prompts, kept=kept, pool=pool
        )

    return admission


def test_what_a_constraint_may_hold_counts_as_memory_of_its_run(make):
    admission = make(3 * 256 * BYTES).admission
    with pytest.raises(MemoryExceededError):
        admission.refuse_if_too_large(run_of(1, constraint_bytes=2 * 256 * BYTES + 1).request)
    assert admission.make(run_of(1, constraint_bytes=256 * BYTES))
    assert admission.committed == 2 * 256 * BYTES
    assert not admission.make(run_of(2, constraint_bytes=1))
    assert admission.make(run_of(3))
    admission.release(1)
    assert admission.committed == 256 * BYTES


def test_runs_begin_until_the_memory_is_promised(make):
    admission = make(2 * 256 * BYTES).admission
    assert admission.make(run_of(1))
    assert admission.make(run_of(2))
    assert not admission.make(run_of(3))
    assert admission.committed == admission.promised == 2 * 256 * BYTES
    admission.release(1)
    assert admission.make(run_of(3))


def test_weights_count_as_taken(make):
    admission = make(2 * 256 * BYTES, weights=256 * BYTES).admission
    assert admission.held == 256 * BYTES
    assert admission.make(run_of(1))
    assert not admission.make(run_of(2))


def test_what_uneven_rows_have_to_spare_counts_as_taken(make):
    padded = [0]
    made = make(3 * 256 * BYTES, padding=lambda: padded[0])
    assert made.admission.free == 3 * 256
    assert made.admission.make(run_of(1))
    padded[0] = 256 + 1
    assert made.admission.held == made.pool.held_by_others(None) == (2 * 256 + 1) * BYTES
    assert made.admission.free == 256 - 1
    assert not made.admission.make(run_of(2))
    padded[0] = 256
    assert made.admission.make(run_of(2))
    assert made.admission.free == 0


def test_what_can_never_fit_is_refused_with_both_sizes(make):
    admission = make(256 * BYTES).admission
    admission.refuse_if_too_large(run_of(1).request)
    with pytest.raises(MemoryExceededError) as caught:
        admission.refuse_if_too_large(run_of(1, 257).request)
    assert caught.value.required_memory == 2 * 256 * BYTES
    assert caught.value.available_memory == 256 * BYTES


def test_what_is_kept_for_prompts_to_come_goes_first(make):
    made = make(256 * BYTES)
    made.prefixes.put("", list(range(20)), [cache_of(list(range(20)))])
    assert made.admission.held == 256 * BYTES
    assert made.admission.make(run_of(1))
    assert len(made.prefixes) == 0


def test_a_parked_run_gives_its_caches_to_what_is_kept(make):
    made = make(2 * 256 * BYTES)
    row = Row()
    caches = row.caches
    made.admission.park(run_of(9, row=row))
    assert made.admission.make(run_of(1))
    assert row.caches is caches, "there was room beside it"
    assert made.admission.make(run_of(2))
    assert (row.caches, row.done) == (None, 0)
    assert made.kept == [caches]


def test_what_parked_runs_keep_counts_for_other_models_as_long_as_they_keep_it(make):
    pool = MemoryPool(2 * UNIT)
    mine, other = make(0, pool=pool).admission, make(0, pool=pool).admission
    run = run_of(1)
    assert mine.make(run)
    run.parked = Parked(Row(), None)
    mine.park(run)
    assert (mine.committed, mine.held) == (0, UNIT)
    assert not other.make(run_of(1, 2 * 256)), "there is half of it"
    run.parked.evict_caches()
    assert mine.held == 0
    assert other.make(run_of(1, 2 * 256))
    other.release(1)
    run.parked = Parked(Row(), None)
    assert mine.make(run)
    run.parked = None
    assert mine.held == mine.committed == UNIT
    mine.release(1)


@pytest.mark.parametrize("end", ["ended", "goes on"])
def test_a_parked_run_that_is_gone_holds_nothing_that_another_model_lacks(make, end):
    pool = MemoryPool(2 * UNIT)
    mine, other = make(0, pool=pool).admission, make(0, pool=pool).admission
    run = run_of(1, row=Row())
    mine.park(run)
    assert mine.make(run_of(2)), "another run of the model, admitted while it was parked"
    if end == "goes on":
        mine.release(2)
        assert mine.make(run)
        mine.release(1)
    else:
        mine.release(1)
        mine.release(2)
    assert mine.held == 0
    assert other.make(run_of(1, 2 * 256))
    other.release(1)
    pool.reserve("a model to be loaded", 2 * UNIT)


def test_other_models_give_up_what_they_keep(make):
    pool = MemoryPool(256 * BYTES)
    other = make(0, pool=pool)
    other.prefixes.put("", list(range(20)), [cache_of(list(range(20)))])
    mine = make(0, pool=pool)
    assert mine.admission.make(run_of(1))
    assert len(other.prefixes) == 0
    other.admission.leave()
    mine.admission.leave()
    assert pool.held_by_others(None) == 0


def test_a_run_that_waits_for_nobody_s_end_is_refused_after_a_while(make):
    pool = MemoryPool(256 * BYTES)
    pinned = make(0, weights=200 * BYTES, pool=pool)
    admission = make(0, pool=pool).admission
    assert not admission.make(run_of(1))
    assert admission.deadlocked
    admission.refuse_if_deadlocked(100.0)
    admission.refuse_if_deadlocked(100.0 + RETRY_AFTER_S / 2)
    with pytest.raises(ResourceExceededError) as caught:
        admission.refuse_if_deadlocked(100.0 + RETRY_AFTER_S)
    assert caught.value.details["retry_after"] == RETRY_AFTER_S
    pinned.admission.leave()
    assert admission.make(run_of(1))


def test_a_run_that_waits_for_another_s_end_is_not_refused(make):
    admission = make(256 * BYTES).admission
    assert admission.make(run_of(1))
    assert not admission.make(run_of(2))
    assert not admission.deadlocked
    for now in (0.0, 2 * RETRY_AFTER_S):
        admission.refuse_if_deadlocked(now)


UNIT = 256 * BYTES  # of memory; a cache of 20 tokens has this size


def reading_run(made, key, tokens=256):
    """Return a run for which a prefix of 20 tokens was read from disk and is kept."""
    made.prefixes.put("", list(range(20)), [cache_of(list(range(20)))])
    request = RunRequest(list(range(30)), GenerationOptions(max_tokens=tokens - 30))
    return Run(key, request, read_prefix=next(iter(made.prefixes._entries)))


def test_a_run_takes_the_prefix_that_was_read_for_it_where_memory_is_short(make):
    made = make(2 * UNIT)
    assert made.admission.make(run_of(1))
    run = reading_run(made, 2)
    assert made.admission.make(run)
    assert run.taken_prefix.length == 20
    assert run.taken_prefix.caches[0].offset == 20
    assert (made.prefixes.nbytes, made.admission.held) == (0, 2 * UNIT)


def test_the_prefix_that_was_read_for_a_run_stays_while_the_run_waits(make):
    made = make(4 * UNIT)
    assert made.admission.make(run_of(1))
    assert made.admission.make(run_of(2))
    run = reading_run(made, 3, 3 * 256)
    made.prefixes.put("", list(range(50, 70)), [cache_of(list(range(50, 70)))])
    assert not made.admission.make(run)
    assert made.prefixes.nbytes == 2 * UNIT, "eviction would not be enough"
    made.admission.release(1)
    assert made.admission.make(run)
    assert made.prefixes.nbytes == 0, "the other one is evicted"
    assert run.taken_prefix.length == 20


def test_a_prefix_stays_in_the_cache_where_there_is_memory_for_it_too(make):
    made = make(4 * UNIT)
    run = reading_run(made, 1)
    assert made.admission.make(run)
    assert run.taken_prefix is None
    assert made.prefixes.nbytes == UNIT


def test_other_models_may_evict_a_prefix_whose_run_waits(make):
    made = make(2 * UNIT)
    run = reading_run(made, 1)
    assert made.admission.forget(1) == UNIT
    assert made.admission.make(run)
    assert run.taken_prefix is None


def test_a_run_that_waits_for_the_ends_of_others_evicts_nothing(make):
    made = make(3 * UNIT)
    made.prefixes.put("", list(range(20)), [cache_of(list(range(20)))])
    row = Row()
    caches = row.caches
    assert made.admission.make(run_of(1))
    made.admission.park(run_of(9, row=row))
    assert not made.admission.make(run_of(2, 3 * 256))
    assert made.prefixes.nbytes == UNIT
    assert row.caches is caches


def test_the_caches_of_the_run_that_is_waited_for_stay(make):
    made = make(3 * UNIT)
    row = Row()
    caches = row.caches
    large = run_of(9, 3 * 256, row=row)
    made.admission.park(large)
    assert made.admission.make(run_of(1))
    assert not made.admission.make(large)
    assert made.admission.awaited == 9
    assert made.admission.make(run_of(2))
    assert not made.admission.make(run_of(3))
    assert row.caches is caches


def test_runs_that_fit_go_past_one_that_does_not_until_its_memory_is_reserved(make):
    made = make(4 * UNIT)
    admission = made.admission
    assert admission.make(run_of(1))
    assert admission.awaited is None
    assert not admission.make(run_of(2, 4 * 256))
    for key in range(3, 3 + MAX_PASSED):
        assert admission.make(run_of(key))
        admission.release(key)
    assert not admission.make(run_of(100)), "there would be memory"
    assert not admission.make(run_of(2, 4 * 256))
    admission.release(1)
    assert admission.make(run_of(2, 4 * 256))
    assert admission.awaited is None


def test_memory_is_reserved_against_other_models_too(make):
    pool = MemoryPool(4 * UNIT)
    mine, other = make(0, pool=pool).admission, make(0, pool=pool).admission
    assert mine.make(run_of(1))
    assert not mine.make(run_of(2, 4 * 256))
    for key in range(3, 3 + MAX_PASSED):
        assert other.make(run_of(key))
        other.release(key)
    assert not other.make(run_of(100))
    assert other.awaited is None
    mine.leave()
    assert other.make(run_of(100)), "a model that is unloaded waits for nothing"


def test_a_run_of_any_model_gives_its_memory_to_one_of_another_client(make):
    pool = MemoryPool(4 * UNIT)
    mine, other = make(0, pool=pool).admission, make(0, pool=pool).admission
    assert mine.make(run_of(1, 3 * 256, client="a"))
    mine.decode(1)
    assert mine.yielding(0.0) is None, "nobody waits"
    waiting = run_of(1, 2 * 256, client="b")
    assert not other.make(waiting)
    assert mine.yielding(3600.0) is None
    assert other.yielding(0.0) is None, "the run is of the other model"
    assert mine.yielding(0.0) == 1
    mine.release(1)
    assert not mine.make(run_of(1, 3 * 256, client="a")), "memory is reserved"
    assert other.make(waiting)
    assert mine.yielding(0.0) is None


def answers_to_one_prompt(made, *keys):
    """Return the further answers to a prompt that was read, whose caches are kept for them."""
    shared = SharedPrompt(leader=100, ready=True, others=set(keys))
    made.prompts.keep(shared, [cache_of(list(range(20)))], 20, UNIT)
    return shared, [
        Run(key, RunRequest([1], GenerationOptions(max_tokens=255), shared_prompt=shared))
        for key in keys
    ]


def test_caches_kept_for_further_answers_are_counted_and_go_where_memory_is_short(make):
    made = make(3 * UNIT)
    shared, (second, third) = answers_to_one_prompt(made, 2, 3)
    assert made.admission.held == UNIT
    assert made.admission.make(run_of(1))
    assert made.admission.make(second)
    assert shared.caches is not None
    assert made.admission.make(third), "it reads the prompt itself"
    assert (shared.caches, made.admission.held) == (None, 3 * UNIT)


def test_other_models_get_the_memory_of_caches_kept_for_further_answers(make):
    pool = MemoryPool(UNIT)
    shared, _ = answers_to_one_prompt(make(0, pool=pool), 2, 3)
    assert make(0, pool=pool).admission.make(run_of(1))
    assert shared.caches is None


def test_what_is_kept_for_later_prompts_goes_before_what_is_kept_for_further_answers(make):
    made = make(3 * UNIT)
    shared, (second, _) = answers_to_one_prompt(made, 2, 3)
    made.prefixes.put("", list(range(20)), [cache_of(list(range(20)))])
    assert made.admission.make(run_of(1))
    assert made.admission.make(second)
    assert (made.prefixes.nbytes, made.admission.held) == (0, 3 * UNIT)
    assert shared.caches is not None


def test_the_last_answer_to_a_prompt_begins_in_the_memory_of_its_caches(make):
    made = make(2 * UNIT)
    shared, (last,) = answers_to_one_prompt(made, 2)
    assert made.admission.make(run_of(1))
    assert made.admission.make(last)
    assert shared.caches is not None
    shared.begun(2)
    assert made.admission.held == 2 * UNIT
