"""Rows that decode in one forward pass, by themselves."""

import pytest
from mlx_lm.sample_utils import greedy_sampler
from mlx_lm.utils import load_model

from provider.caches.single import SingleRowCaches
from provider.engine.group import Group
from provider.engine.model import as_model
from provider.engine.rows import Row, StepResult
from provider.runtime.mlx import mx
from tests.support.tiny_models import LLAMA, write_model

PROMPT = [30, 31, 32, 33]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return as_model(load_model(write_model(tmp_path_factory.mktemp("m") / "llama", LLAMA))[0])


def group_of(model, max_tokens=5, ends=(), sampler=greedy_sampler, keep=None):
    row = Row(1, list(PROMPT), len(PROMPT), max_tokens, sampler)
    caches = model.make_cache()
    model(mx.array([PROMPT[:-1]]), cache=caches)
    row.done = row.fed = len(PROMPT) - 1
    return row, Group(model, frozenset(ends), [row], SingleRowCaches(caches), keep)


def step(group):
    result = StepResult()
    group.step(result)
    return result


def test_a_step_gives_the_token_of_the_pass_before(model):
    row, group = group_of(model)
    assert step(group).tokens == []
    assert group.first_token_pending
    tokens = [step(group).tokens for _ in range(5)]
    assert [len(one) for one in tokens] == [1] * 5
    assert tokens[-1][0].finish == "length"
    assert row.gone
    assert group.members == []


def test_collecting_launches_nothing(model):
    row, group = group_of(model)
    step(group)
    result = StepResult()
    group.collect(result)
    group.collect(result)
    assert len(result.tokens) == 1
    assert row.drawn == row.generated == 1


def test_a_row_that_leaves_has_its_caches_kept_with_what_they_hold(model):
    kept = []
    row, group = group_of(model, keep=lambda _row, copy, tokens: kept.append((copy(), tokens)))
    for _ in range(3):
        step(group)
    group.leave(row)
    ((caches, tokens),) = kept
    assert tokens == row.fed
    assert {cache.offset for cache in caches} == {tokens}
    group.leave(row)
    assert len(kept) == 1


def test_a_parked_row_takes_its_caches_and_the_token_on_its_way_along(model):
    _, undisturbed = group_of(model)
    row, group = group_of(model)
    for _ in range(3):
        step(undisturbed)
        step(group)
    caches, pending = group.extract(row)
    assert [pending] == [one.token for one in step(undisturbed).tokens]
    assert {cache.offset for cache in caches} == {row.fed}
