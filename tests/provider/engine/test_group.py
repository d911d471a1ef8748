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
from provider.runtime.mlx_lm import TokenBuffer
from tests.support.held_constraint import HeldConstraint
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


class Unread:
    """Tokens of a launched pass that can't be read."""

    def tolist(self):
        raise RuntimeError("the device is lost")


@pytest.mark.parametrize("read", [Group.step, Group.collect])
def test_a_row_whose_last_token_cannot_be_read_stays_a_member(model, read):
    row, group = group_of(model, max_tokens=3)
    while row.drawn < 3:
        step(group)
    group._launched = (Unread(), group._launched[1])
    with pytest.raises(RuntimeError, match="the device is lost"):
        read(group, StepResult())
    assert group.members == [row]
    assert group.alive


def test_a_group_is_alive_as_long_as_it_has_members(model):
    row, group = group_of(model, 3)
    while group.members:
        assert group.alive
        step(group)
    assert not group.alive
    assert row.gone


WANTED = [60, 61, 62, 63, 64]


@pytest.fixture
def constrained():
    """A maker of groups of one row each, constrained to `WANTED`, whose masks are late."""
    constraints, makers = [], []

    def make(model, processors=(), error=None, **options):
        row, group = group_of(model, len(WANTED), **options)
        row.constraint = HeldConstraint(WANTED, error)
        row.processors = processors
        row.context = TokenBuffer(row.sequence[:-1]) if processors else None
        constraints.append(row.constraint)
        makers.append(group._masks)
        return row, group

    yield make
    for one in constraints:
        one.let_go()
    for one in makers:
        one.close()


def ripen(row, group):
    """Let the mask be made for which the only row of a group waits."""
    row.constraint.let_go()
    for _ in range(3000):
        if not group.waits:
            return
        group._masks.wait(0.01)
    raise AssertionError("the mask stays late")


def part(group):
    """Step until a row's mask is late; return the group in which it waits."""
    step(group)
    (waiting,) = group.parted()
    assert waiting.waits
    return waiting


def test_a_row_whose_mask_is_late_sits_out_and_joins_again(batched, constrained):
    model, together = batched
    late, group = constrained(model)
    other, second = group_of(model, 9, prompt=OTHER)
    group.join(second, together)
    waiting = part(group)
    assert (group.members, waiting.members) == ([other], [late])
    assert waiting.apart
    for _ in range(3):
        assert [token.key for token in step(group).tokens] == [other.key]
        assert step(waiting).tokens == []
    assert late.drawn == late.generated == 0
    ripen(late, waiting)
    step(waiting)
    assert not waiting.apart
    group.join(waiting, together)
    to_the_end(group)
    assert late.sequence == [*PROMPT, *WANTED]
    assert other.sequence == alone(model, OTHER, 9)


def test_a_row_alone_waits_in_its_own_group(model, constrained):
    late, group = constrained(model)
    step(group)
    assert group.parted() == []
    assert group.waits
    assert group.members == [late]
    ripen(late, group)
    to_the_end(group)
    assert late.sequence == [*PROMPT, *WANTED]


def test_processors_of_a_row_that_has_sat_out_are_shown_each_token_once(model, constrained):
    shown = []

    def note(context, logits):
        shown.append(context.tolist())
        return logits

    late, group = constrained(model, [note])
    group.join(group_of(model, prompt=OTHER)[1], SlotCaches)
    waiting = part(group)
    ripen(late, waiting)
    to_the_end(waiting)
    assert shown == [late.sequence[:length] for length in range(4, 9)]


def test_a_late_mask_that_fails_is_the_fault_of_its_row(model, constrained):
    error = ValueError("the mask")
    late, group = constrained(model, error=error)
    step(group)
    group.parted()
    ripen(late, group)
    result = StepResult()
    group.step(result)
    assert result.faults == {late.key: error}


def test_a_row_that_leaves_while_it_waits_drops_its_mask_and_keeps_all_that_it_has_fed(
    model, constrained
):
    kept = []
    late, group = constrained(model, keep=lambda _row, copy, tokens: kept.append((copy(), tokens)))
    step(group)
    group.parted()
    job = group._late.job
    assert group.extract(late) == (None, None)  # with a token more than a parked row's
    group.leave(late)
    assert job.dropped
    assert not group.waits
    ((caches, tokens),) = kept
    assert {cache.offset for cache in caches} == {tokens} == {len(PROMPT)}


def test_a_row_that_has_gone_before_it_sits_out_drops_its_mask(model, constrained):
    late, group = constrained(model)
    group.join(group_of(model, prompt=OTHER)[1], SlotCaches)
    step(group)
    ((_, one),) = group._parting.items()
    late.gone = True
    group.leave(late)
    assert group.parted() == []
    assert one.job.dropped


def test_a_suspect_row_is_one_until_its_next_token_is_read(model):
    row, group = group_of(model)
    row.suspect = True
    assert group.suspect
    step(group)
    assert group.suspect
    step(group)
    assert not group.suspect


def test_an_answer_that_ends_too_early_is_the_fault_of_its_row(model):
    class Unsatisfied(HeldConstraint):
        def satisfied(self, length):
            return False

    row, group = group_of(model, ends=WANTED[:1])
    row.constraint = Unsatisfied(WANTED)
    row.constraint.let_go()
    step(group)
    result = StepResult()
    group.step(result)
    assert result.tokens == []
    assert "before it satisfies its constraint" in str(result.faults[row.key])
