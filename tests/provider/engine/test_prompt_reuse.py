"""What was read once: beginnings that are kept, prompts that are shared."""

from types import SimpleNamespace

import pytest

from provider.caches.prefix_cache import MIN_TOKENS, PrefixCache
from provider.engine.inbox import SyncInbox
from provider.engine.messages import RunRequest
from provider.engine.prompt_reuse import PromptReuse
from provider.engine.rows import Parked, Row
from provider.engine.run import Run
from provider.engine.shapes import ANY_SHAPE, Shapes
from provider.engine.shared_prompt import SharedPrompt
from provider.options import GenerationOptions
from provider.runtime.mlx import mx
from provider.runtime.mlx_lm import ArraysCache, KVCache

PROMPT = list(range(100, 160))


def caches_of(tokens):
    layer = KVCache()
    layer.update_and_fetch(mx.ones((1, 1, tokens, 4)), mx.ones((1, 1, tokens, 4)))
    return [layer]


@pytest.fixture
def reuse():
    return PromptReuse(PrefixCache(1 << 20))


def run_of(key, **details):
    return Run(key, "m", RunRequest(PROMPT, GenerationOptions(), **details), SyncInbox())


def row_of(key=1):
    return Row(key, list(PROMPT), len(PROMPT), 8, None)


def test_a_prompt_begins_with_the_longest_beginning_that_is_kept(reuse):
    row = row_of()
    assert reuse.find(row) is None
    reuse.keep(row, lambda: caches_of(20), 20)
    reuse.keep(row, lambda: caches_of(40), 40)
    hit = reuse.begin(run_of(2), row_of(2))
    assert hit.length == 40
    assert hit.caches[0].offset == 40


def test_a_prefix_is_cut_back_where_shapes_are_to_come_again(reuse):
    reuse.shapes = Shapes(32)
    row = row_of()
    reuse.keep(row, lambda: caches_of(50), 50)
    hit = reuse.find(row)
    assert (hit.length, hit.caches[0].offset) == (32, 32)
    assert hit.caches[0].keys.shape[2] == 256, "positions as of caches that have only grown"
    nearly_all = row_of()
    nearly_all.sequence = PROMPT[:52]
    assert reuse.find(nearly_all).length == 50, "what is left needs no shape of its own"
    reuse.shapes = Shapes(256)
    assert reuse.find(row) is None


def test_a_prefix_that_cannot_be_trimmed_stays_whole(reuse):
    reuse.shapes = Shapes(32)
    state = ArraysCache(1)
    state[0] = mx.ones((1, 4))
    reuse.keep(row_of(), lambda: [state], 50)
    assert reuse.find(row_of()).length == 50


def test_plans_are_cut_to_shapes_that_come_again(reuse):
    reuse.shapes = Shapes(32)
    run = run_of(1)
    run.row = row_of()
    runs = [(run, run.row)]
    assert reuse.in_few_shapes([(1, 59)], runs) == [(1, 59)], "the end may be padded"
    run = run_of(1, boundaries=(56,))
    runs = [(run, row_of())]
    assert reuse.in_few_shapes([(1, 56)], runs) == [(1, 56)], "a boundary too"
    assert reuse.in_few_shapes([(1, 40)], runs) == [(1, 32)]
    assert reuse.in_few_shapes([(1, 9), (2, 9), (3, 9)], runs) == [(1, 9), (2, 9)]
    assert reuse.in_few_shapes([(1, 5)], runs) == [(1, 32)], "no chunk is smaller than a shape"
    reuse.shapes = ANY_SHAPE
    assert reuse.in_few_shapes([(1, 40)], runs) == [(1, 40)]


def test_a_run_begins_with_the_prefix_that_it_has_taken(reuse):
    reuse.keep(row_of(), lambda: caches_of(40), 40)
    run = run_of(2)
    run.taken_prefix = reuse.prefixes.take(next(iter(reuse.prefixes._entries)), PROMPT)
    assert len(reuse.prefixes) == 0
    assert reuse.begin(run, row_of(2)).length == 40
    assert reuse.begin(run, row_of(2)) is None, "it is taken once"


def test_a_prompt_whose_extras_belong_to_its_whole_finds_nothing(reuse):
    reuse.keep(row_of(), lambda: caches_of(40), 40)
    row = row_of()
    row.prompt_embeddings = SimpleNamespace(extras={"deepstack": 1}, length=10)
    assert reuse.find(row) is None


class Disk:
    """A store that has the first 40 tokens of any prompt."""

    def longest(self, _kind, _tokens):
        return 40, SimpleNamespace(nbytes=100)


def test_a_run_that_needs_no_prefix_asks_for_none_of_the_disk(reuse):
    reuse.prefixes.store = Disk()
    assert reuse.on_disk(run_of(1))
    parked = run_of(2)
    parked.parked = Parked(row_of(2), None)
    assert reuse.on_disk(parked)
    parked.parked.row.caches = caches_of(50)
    assert reuse.on_disk(parked) is None
    shared = SharedPrompt()
    leader, other = (run_of(key, shared_prompt=shared) for key in (3, 4))
    for run in (leader, other):
        reuse.leads(run)
    assert reuse.on_disk(leader)
    reuse.release(leader, caches_of(58), 58)
    assert reuse.on_disk(other) is None


def test_the_disk_is_not_asked_for_prompts_whose_images_are_read_whole(reuse):
    reuse.prefixes.store = Disk()
    run, row = run_of(1, images="some"), row_of()
    assert reuse.on_disk(run)
    row.prompt_embeddings = SimpleNamespace(extras={"deepstack": 1}, length=10)
    assert reuse.find(row) is None
    assert reuse.on_disk(run) is None
    assert reuse.on_disk(run_of(2))


def test_the_first_run_of_a_prompt_leads_and_the_others_begin_where_it_ended(reuse):
    shared = SharedPrompt()
    runs = [run_of(key, shared_prompt=shared) for key in (1, 2, 3)]
    assert [reuse.leads(run) for run in runs] == [True, False, False]
    assert reuse.release(runs[0], caches_of(30), 30) == []
    assert reuse.release(runs[1], caches_of(58), 58) == []
    assert reuse.release(runs[0], caches_of(58), 58) == [2, 3]
    assert reuse.release(runs[0], caches_of(59), 59) == []
    hits = [reuse.begin(run, row_of(run.key)) for run in runs[1:]]
    assert [hit.length for hit in hits] == [58, 58]
    assert hits[0].caches[0] is not hits[1].caches[0]
    assert shared.caches is None


def test_the_others_are_queued_when_the_first_ends_before_it_has_read(reuse):
    shared = SharedPrompt()
    runs = [run_of(key, shared_prompt=shared) for key in (1, 2, 3)]
    for run in runs:
        reuse.leads(run)
    assert reuse.forget(runs[2]) == []
    assert reuse.forget(runs[0]) == [2]
    assert reuse.forget(runs[1]) == []
    assert reuse.begin(runs[1], row_of(2)) is None


def test_a_prompt_is_read_alone_up_to_its_next_boundary(reuse):
    run, row = run_of(1, boundaries=(32, 40)), row_of()
    other = run_of(2), row_of(2)
    plan = [(2, 59), (1, 59)]
    assert reuse.up_to_boundary(plan, [other, (run, row)]) == [(1, 32)]
    row.done = 32  # the next boundary is too near to be worth a pass of its own
    assert 40 - row.done < MIN_TOKENS
    assert reuse.up_to_boundary(plan, [other, (run, row)]) == plan


def test_images_are_read_in_one_pass_where_their_extras_belong_together(reuse):
    run, row = run_of(1), row_of()
    row.prompt_embeddings = SimpleNamespace(extras={}, length=50)
    assert reuse.up_to_boundary([(1, 16)], [(run, row)]) == [(1, 16)]
    row.prompt_embeddings = SimpleNamespace(extras={"deepstack": 1}, length=50)
    assert reuse.up_to_boundary([(1, 16)], [(run, row)]) == [(1, 50)]


def test_only_boundaries_are_kept(reuse):
    run, row = run_of(1, boundaries=(32,)), row_of()
    row.caches, row.done = caches_of(31), 31
    reuse.keep_boundary(run, row)
    assert len(reuse.prefixes) == 0
    row.caches, row.done = caches_of(32), 32
    reuse.keep_boundary(run, row)
    assert len(reuse.prefixes) == 1
    assert reuse.find(row).caches[0] is not row.caches[0]
