"""Choosing the next token."""

from types import SimpleNamespace

import pytest
from mlx_lm.sample_utils import greedy_sampler

from provider.constraints.mask_maker import MaskMaker
from provider.engine.logprobs import LogprobRecorder
from provider.engine.sampling import (
    KEYS,
    SeededSampler,
    choose,
    choose_late,
    processors_for,
    sampler_for,
)
from provider.options import GenerationOptions
from provider.runtime.mlx import mx
from tests.support.held_constraint import HeldConstraint

VOCABULARY = 50


def row(sampler=greedy_sampler, processors=(), context=None):
    return SimpleNamespace(
        sampler=sampler,
        processors=processors,
        context=context,
        constraint=None,
        recorder=None,
        drawn=0,
    )


class Context:
    """The tokens that a processor is shown."""

    def update_and_fetch(self, fed):
        return fed


def logits_of(*best):
    return mx.array([[9.0 if token == one else 0.0 for token in range(VOCABULARY)] for one in best])


def choices(rows, best):
    fed = mx.zeros((len(rows),), mx.uint32)
    chosen, failures, late = choose(logits_of(*best), rows, fed, MaskMaker())
    assert late == {}
    return chosen.tolist(), failures


def test_temperature_zero_is_greedy_whatever_else_is_set():
    options = GenerationOptions(temperature=0.0, top_p=0.5, seed=3)
    assert sampler_for(options, VOCABULARY) is greedy_sampler


def test_runs_with_the_same_parameters_share_a_sampler_and_seeded_ones_do_not():
    same = [sampler_for(GenerationOptions(temperature=0.7), VOCABULARY) for _ in range(2)]
    assert same[0] is same[1]
    own = [sampler_for(GenerationOptions(temperature=0.7, seed=1), VOCABULARY) for _ in range(2)]
    assert own[0] is not own[1]


def test_a_seeded_sampler_draws_the_same_again_from_wherever_it_is_sent():
    logprobs = mx.zeros((1, VOCABULARY))
    sampler = SeededSampler(5, 1.0, 1.0, 0.0, 0)
    drawn = [sampler(logprobs).item() for _ in range(KEYS + 8)]
    for place in (KEYS + 6, 2, 0):  # remembered, and long forgotten
        sampler.seek(place)
        assert [sampler(logprobs).item() for _ in range(2)] == drawn[place : place + 2]


def test_every_row_gets_the_token_of_its_own_sampler():
    last = row(sampler=lambda logprobs: mx.full((logprobs.shape[0],), VOCABULARY - 1))
    chosen, failures = choices([row(), last, None, row()], [3, 4, 5, 6])
    assert [chosen[0], chosen[1], chosen[3]] == [3, VOCABULARY - 1, 6]
    assert failures == {}


def raising(error):
    def call(*_arguments):
        raise error

    return call


def test_a_row_that_fails_twice_is_named_once_with_its_first_error():
    first, second = ValueError("processor"), ValueError("sampler")
    broken = row(raising(second), [raising(first)], Context())
    chosen, failures = choices([row(), broken, row()], [3, 4, 5])
    assert failures == {1: first}
    assert (chosen[0], chosen[2]) == (3, 5)


def test_a_bias_makes_a_processor_and_no_penalty_makes_none():
    assert processors_for(GenerationOptions()) == []
    (bias,) = processors_for(GenerationOptions(logit_bias={7: 100.0}))
    biased = row(processors=[bias], context=Context())
    assert choices([biased], [3]) == ([7], {})


@pytest.mark.parametrize("top_k", [0, VOCABULARY, VOCABULARY + 9])
def test_as_many_tokens_as_there_are_need_no_filter(top_k):
    options = GenerationOptions(temperature=0.7, top_k=top_k, seed=1)
    sampler = sampler_for(options, VOCABULARY)
    assert 0 <= sampler(mx.zeros((1, VOCABULARY))).item() < VOCABULARY


def test_a_seeded_row_draws_the_same_beside_slots_without_a_row():
    for seed in range(8):
        alone, _ = choices([row(SeededSampler(seed, 9.0, 1.0, 0.0, 0))], [5])
        beside, _ = choices([None, row(SeededSampler(seed, 9.0, 1.0, 0.0, 0)), None], [7, 5, 7])
        assert beside[1] == alone[0]


@pytest.mark.parametrize(
    ("filters", "possible"),
    [
        ({"top_k": 2}, {0, 1}),
        ({"top_p": 0.6}, {0, 1}),
        ({"min_p": 0.3}, {0, 1, 2}),
        ({}, {0, 1, 2, 3}),
    ],
)
def test_filters_leave_the_likeliest_tokens_to_a_seeded_run(filters, possible):
    options = GenerationOptions(temperature=1.0, seed=4, **filters)
    sampler = sampler_for(options, 4)
    logprobs = mx.log(mx.array([[0.4, 0.3, 0.2, 0.1]]))
    assert {sampler(logprobs).item() for _ in range(100)} == possible


def test_a_seeded_sampler_that_is_where_it_should_be_stays_there():
    logprobs = mx.zeros((1, VOCABULARY))
    one, other = (SeededSampler(5, 1.0, 1.0, 0.0, 0) for _ in range(2))
    assert one(logprobs).item() == other(logprobs).item()
    one.seek(1)
    assert one(logprobs).item() == other(logprobs).item()


@pytest.fixture
def maker():
    made = MaskMaker()
    yield made
    made.close()


@pytest.fixture
def constrained(maker):  # let go before the maker is closed, which waits for late masks
    """A maker of rows that may only draw token 8, whose masks are late."""
    made = []

    def make(error=None, recorder=None, **options):
        one = row(**options)
        one.constraint, one.client, one.recorder = HeldConstraint([8], error), None, recorder
        one.answer_so_far = lambda _last: (0, 0, list)
        made.append(one.constraint)
        return one

    yield make
    for constraint in made:
        constraint.let_go()


def chosen_of(rows, best, maker):
    return choose(logits_of(*best), rows, mx.zeros((len(rows),), mx.uint32), maker)


def ripen(maker, late):
    for _ in range(3000):
        if late.job.done:
            return
        maker.wait(0.01)
    raise AssertionError("the mask stays late")


def test_a_constrained_row_draws_what_its_mask_allows_and_others_what_they_like(constrained, maker):
    bound = constrained()
    bound.constraint.let_go()
    chosen, failures, late = chosen_of([row(), bound], [3, 4], maker)
    assert (chosen.tolist(), failures, late) == ([3, 8], {}, {})


def test_a_mask_that_fails_is_the_fault_of_its_row(constrained, maker):
    error = ValueError("mask")
    bound = constrained(error)
    bound.constraint.let_go()
    chosen, failures, late = chosen_of([bound, row()], [3, 4], maker)
    assert (chosen[1].item(), failures, late) == (4, {0: error}, {})


def test_a_row_whose_mask_is_late_draws_nothing_before_and_is_recorded_once(constrained, maker):
    drawn, recorder = [], LogprobRecorder(0)

    def likeliest(logprobs):
        drawn.append(len(logprobs))
        return mx.argmax(logprobs, axis=-1)

    bound = constrained(sampler=likeliest, recorder=recorder)
    chosen, failures, late = chosen_of([row(), bound], [3, 4], maker)
    assert (chosen[0].item(), failures, late.keys()) == (3, {}, {1})
    assert drawn == []
    bound.constraint.let_go()
    ripen(maker, late[1])
    token, failures = choose_late(late[1], bound)
    assert (token.tolist(), failures, drawn) == ([8], {}, [1])
    assert recorder.read(0).logprob == pytest.approx(0.0)  # the only token that is allowed


def test_where_all_masks_are_late_nothing_is_drawn(constrained, maker):
    rows = [constrained(sampler=raising(AssertionError("drawn"))) for _ in range(2)]
    chosen, failures, late = chosen_of(rows, [3, 4], maker)
    assert (chosen.shape, failures, late.keys()) == ((2,), {}, {0, 1})


def test_a_late_mask_that_fails_is_the_fault_of_its_row(constrained, maker):
    error = ValueError("mask")
    bound = constrained(error)
    _, failures, late = chosen_of([bound], [3], maker)
    assert failures == {}
    bound.constraint.let_go()
    ripen(maker, late[0])
    assert choose_late(late[0], bound)[1] == {0: error}
