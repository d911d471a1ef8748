"""Rows that decode in one forward pass, by themselves."""

import pytest
from mlx_lm.sample_utils import greedy_sampler
from mlx_lm.utils import load_model

from provider.caches.merged import MergedCaches
from provider.caches.single import SingleRowCaches
from provider.caches.slots import SlotCaches
from provider.constraints.mask_maker import MaskMaker
from provider.engine.group import Group
from provider.engine.model import as_model
from provider.engine.rows import Row, StepResult
from provider.runtime.mlx import mx
from tests.support.tiny_models import GEMMA, LLAMA, write_model

PROMPT = [30, 31, 32, 33]


OTHER, THIRD = [700, 50, 51], [90, 91, 92, 93, 94, 95]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return as_model(load_model(write_model(tmp_path_factory.mktemp("m") / "llama", LLAMA))[0])


@pytest.fixture(scope="module", params=[(LLAMA, SlotCaches), (GEMMA, MergedCaches)])
def batched(request, tmp_path_factory):
    """A model, and the class in which its caches run together."""
    config, together = request.param
    folder = tmp_path_factory.mktemp("m") / config["model_type"]
    return as_model(load_model(write_model(folder, config))[0]), together


def group_of(model, max_tokens=5, ends=(), sampler=greedy_sampler, keep=None, prompt=PROMPT):
    row = Row(1, list(prompt), len(prompt), max_tokens, sampler)
    caches = model.make_cache()
    model(mx.array([prompt[:-1]]), cache=caches)
    row.done = row.fed = len(prompt) - 1
    return row, Group(model, frozenset(ends), [row], SingleRowCaches(caches), keep, MaskMaker())


def to_the_end(group):
    while group.members:
        step(group)


def alone(model, prompt, max_tokens=5):
    """Return the sequence of a row that has its group for itself."""
    row, group = group_of(model, max_tokens, prompt=prompt)
    to_the_end(group)
    return row.sequence


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


def test_rows_of_groups_that_have_joined_get_the_tokens_that_they_get_alone(batched):
    model, together = batched
    first, group = group_of(model)
    step(group)
    step(group)
    second, other = group_of(model, prompt=OTHER)
    group.join(other, together)
    step(group)
    third, another = group_of(model, prompt=THIRD)
    group.join(another, together)
    assert group.members == [first, second, third]
    to_the_end(group)
    sequences = [alone(model, prompt) for prompt in (PROMPT, OTHER, THIRD)]
    assert [row.sequence for row in (first, second, third)] == sequences


def test_a_group_joins_with_its_launched_pass(batched):
    model, together = batched
    first, group = group_of(model)
    second, other = group_of(model, prompt=OTHER)
    step(other)
    group.join(other, together)
    assert group.first_token_pending
    assert [token.key for token in step(group).tokens] == [second.key]
    to_the_end(group)
    assert [first.sequence, second.sequence] == [alone(model, PROMPT), alone(model, OTHER)]


def test_a_row_that_joins_takes_the_slot_of_one_that_has_left(model):
    first, group = group_of(model, max_tokens=9)
    leaving, other = group_of(model, prompt=OTHER)
    group.join(other, SlotCaches)
    step(group)
    leaving.gone = True
    group.leave(leaving)
    third, another = group_of(model, prompt=THIRD)
    group.join(another, SlotCaches)
    assert len(group._rows) == 2
    to_the_end(group)
    sequences = [alone(model, PROMPT, 9), alone(model, THIRD)]
    assert [first.sequence, third.sequence] == sequences
    assert leaving.sequence == OTHER


def test_a_group_whose_rows_have_all_left_takes_the_caches_of_the_other(model):
    leaving, group = group_of(model)
    step(group)
    leaving.gone = True
    group.leave(leaving)
    second, other = group_of(model, prompt=OTHER)
    group.join(other, SlotCaches)
    assert group.members == [second]
    assert step(group).tokens == []
    to_the_end(group)
    assert second.sequence == alone(model, OTHER)


def test_the_last_launched_token_of_a_row_is_read_by_the_group_that_takes_it_over(model):
    first, group = group_of(model)
    last, other = group_of(model, max_tokens=1, prompt=OTHER)
    step(other)
    other.leave(last)
    group.join(other, SlotCaches)
    assert group.members == [first, last]
    (token,) = step(group).tokens
    assert token.finish == "length"
    to_the_end(group)
    assert [first.sequence, last.sequence] == [alone(model, PROMPT), alone(model, OTHER, 1)]


class Failing:
    """A model whose forward passes fail when it is told to."""

    def __init__(self, model):
        self._model, self.fails = model, False

    def __getattr__(self, name):
        return getattr(self._model, name)

    def __call__(self, *tokens, **options):
        if self.fails:
            raise ArithmeticError
        return self._model(*tokens, **options)


def test_an_error_in_a_pass_is_raised_after_the_tokens_of_the_pass_before_are_read(model):
    failing = Failing(model)
    row, group = group_of(failing)
    step(group)
    failing.fails = True
    result = StepResult()
    with pytest.raises(ArithmeticError):
        group.step(result)
    assert [token.key for token in result.tokens] == [row.key]
    assert row.generated == 1


def test_a_group_is_alive_as_long_as_it_has_members(model):
    row, group = group_of(model, 3)
    while group.members:
        assert group.alive
        step(group)
    assert not group.alive
    assert row.gone
