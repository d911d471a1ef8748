"""How large a chunk of a prompt may be beside running streams."""

from contextlib import closing
from itertools import islice

import pytest

from provider.engine.pace import FIRST_CHUNK, MAX_CHUNK, MAX_TRIAL, MIN_CHUNK, Pace

# Seconds of a pass, of each of its tokens, and of a decode step.
FIXED, TOKEN, STEP = 0.03, 0.0005, 0.02


def pass_time(tokens, fixed=FIXED, token=TOKEN):
    return fixed + tokens * token


def loaded(gap=0.1, slowdown=2.0, new_shape=0.0, **costs):
    """Return a Pace that knows what passes cost, and a decode step."""
    pace = Pace(gap, slowdown)
    tried(pace, new_shape, **costs)
    pace.prefilled(MAX_CHUNK, 0, pass_time(MAX_CHUNK, **costs) + new_shape)
    for _ in range(3):
        pace.decoded(STEP)
    return pace


def tried(pace, new_shape=0.0, **costs):
    """Time the passes that loading times; return their sizes."""
    sizes = []
    for tokens in pace.trials():
        usual = pass_time(tokens, **costs)
        pace.tried(tokens, [usual + new_shape * (tokens > 1), usual, usual])
        sizes.append(tokens)
    return sizes


def test_a_chunk_and_a_decode_step_fill_the_gap():
    pace = loaded()
    chunk = pace.budget(0)
    assert 0.085 < pass_time(chunk) + STEP <= 0.1


def test_before_any_pass_was_timed_a_chunk_is_of_a_fixed_size():
    assert Pace(0.1, 2.0).budget(0) == FIRST_CHUNK
    assert Pace(0.1, 2.0).budget(0, streaming=False) == MAX_CHUNK


def test_where_no_reader_waits_a_prompt_is_read_as_fast_as_can_be():
    pace = loaded()
    assert pace.budget(0, streaming=False) == MAX_CHUNK
    assert pace.budget(0, 2, streaming=False) < MAX_CHUNK  # another model's readers may wait


def test_models_that_take_turns_share_the_gap():
    pace = loaded(gap=0.2)
    assert pass_time(pace.budget(0, 2)) + STEP == pytest.approx(0.1, rel=0.1)


def test_with_a_longer_context_chunks_are_smaller():
    pace = loaded()
    for context in (0, 1000, 2000, 3000):
        chunk = pace.budget(context)
        pace.prefilled(chunk, context, pass_time(chunk) + chunk * context * 1e-7)
    chunk = pace.budget(4000)
    assert pass_time(chunk) + chunk * 4000 * 1e-7 + STEP == pytest.approx(0.1, rel=0.1)


@pytest.mark.parametrize("slowdown", [1.5, 2.0, 4.0])
def test_where_a_gap_leaves_no_room_a_prompt_gets_slower_by_no_more_than_is_set(slowdown):
    pace = loaded(gap=0.06, slowdown=slowdown)
    chunk = pace.budget(0)
    alone = pass_time(MAX_CHUNK) / MAX_CHUNK
    assert (pass_time(chunk) + STEP) / chunk == pytest.approx(slowdown * alone, rel=0.07)
    # So a gap is longer than the shortest that is possible, by no more than this.
    assert pass_time(chunk) + STEP < 1.05 * (FIXED + STEP) * slowdown / (slowdown - 1)


def test_a_machine_that_gets_slower_gets_smaller_chunks():
    pace, context = loaded(gap=0.2), 0
    before = pace.budget(0)
    for _ in range(10):
        chunk = pace.budget(context)
        pace.prefilled(chunk, context, 2 * pass_time(chunk))
        context += chunk
    after = pace.budget(context)
    assert after < before / 2
    assert 2 * pass_time(after) + STEP <= 0.21


def test_one_pass_that_took_very_long_changes_little():
    pace = loaded()
    for tokens in range(60, 80):  # as prompts of many lengths, so that shapes are known not to cost
        pace.prefilled(tokens, 0, pass_time(tokens))
    before = pace.budget(0)
    pace.prefilled(before, 0, 20 * pass_time(before))
    assert pace.budget(0) > 0.8 * before


def test_one_slow_decode_step_changes_nothing():
    pace = loaded()
    before = pace.budget(0)
    pace.decoded(5.0)
    assert pace.budget(0) == before


def test_a_chunk_is_at_most_twice_the_largest_that_was_timed():
    pace = Pace(0.1)
    for tokens in (1, 64, 64, 64):
        pace.prefilled(tokens, 0, 0.03)
    assert pace.budget(0) == pytest.approx(128, rel=0.07)
    pace.prefilled(128, 64, 0.03)
    assert pace.budget(200) == pytest.approx(256, rel=0.07)


def test_where_each_token_is_dear_chunks_are_small():
    pace = loaded(fixed=0.001, token=0.05)
    assert pace.budget(0) == MIN_CHUNK


def test_where_new_shapes_are_dear_a_known_one_may_be_larger():
    pace = loaded(new_shape=0.08)
    new = pace.budget(1000)
    # The least that a gap takes is 130 ms, and a chunk makes it twice as long at most.
    assert 0.13 < pass_time(new) + 0.08 + STEP < 0.26
    known = new + 50
    pace.prefilled(known, 1000, pass_time(known) + 0.08)
    assert pace.budget(1000) == known
    assert pace.budget(1100) == pytest.approx(new, rel=0.1)


def test_a_machine_that_compiles_at_loading_is_not_taken_for_one_with_dear_shapes():
    pace = Pace(0.1)
    for tokens in pace.trials():
        usual = pass_time(tokens)
        pace.tried(tokens, [usual + 5.0 * (tokens < 32), usual, usual])
    quick = Pace(0.1)
    tried(quick)
    assert pace.budget(0) == quick.budget(0)


def test_after_chunks_of_one_size_a_smaller_one_tells_what_a_pass_costs_by_itself():
    pace, context, sizes = loaded(), 0, []
    for _ in range(20):
        sizes.append(pace.budget(context))
        pace.prefilled(sizes[-1], context, pass_time(sizes[-1]))
        context += sizes[-1]
    smaller = [n for n in sizes if n < 0.7 * max(sizes)]
    assert len(smaller) == 2
    assert all(n == pytest.approx(max(sizes) / 2, abs=4) for n in smaller)


def test_chunks_that_are_as_small_as_can_be_are_told_from_yet_smaller_ones():
    pace, sizes = Pace(0.1), []
    for tokens in pace.trials():  # as if all of it were the tokens
        pace.tried(tokens, [0.02 * tokens] * 3)
    for _ in range(60):
        sizes.append(pace.budget(0))
        pace.prefilled(sizes[-1], 0, 0.07 + 0.001 * sizes[-1])
        pace.decoded(0.01)
    assert sizes[0] == MIN_CHUNK
    assert MIN_CHUNK // 2 in sizes
    assert sizes[-1] > 5 * MIN_CHUNK


def test_a_wrong_belief_about_what_is_fixed_is_given_up():
    pace, context = Pace(0.1), 0
    # As if all but the fixed cost had been timed while the machine was busy.
    for tokens in pace.trials():
        seconds = 0.05 + 0.006 * tokens
        pace.tried(tokens, [seconds] * 3)
    first, sizes = pace.budget(0), []
    for _ in range(100):
        sizes.append(pace.budget(context))
        pace.prefilled(sizes[-1], context, 0.1 + sizes[-1] * 2e-5)
        pace.decoded(0.005)
        context += sizes[-1]
    assert max(sizes[-10:]) > 10 * first


def test_trials_get_larger_until_a_pass_takes_its_time():
    assert tried(Pace(0.1), token=0.005) == [1, 16, 32]
    assert tried(Pace(0.1), token=0.0004) == [1, 16, 32, 64, 128]
    assert tried(Pace(0.1), token=1e-6) == [1, 16, 64, 256, MAX_TRIAL]
    assert tried(Pace(0.1), token=1e-6, fixed=0.001)[-1] == MAX_TRIAL


def test_a_shape_that_was_warmed_up_is_known_without_being_dear():
    pace = loaded(new_shape=0.08)
    before = pace._cost.new_shape
    pace.repeated(512, 1024, pass_time(512))
    assert (512, 1) in pace._cost.shapes(1024)
    assert pace._cost.new_shape == pytest.approx(before, rel=0.05)


def test_passes_after_more_tokens_are_timed_until_the_cost_of_attention_shows():
    pace = Pace(0.1, 2.0)
    tried(pace)
    for pairs, most in ((1e-5, 3), (0.0, 99)):
        tried(pace)
        passes = []
        for tokens, done in pace.depths():
            passes.append((tokens, done))
            pace.deepened(tokens, done, pass_time(tokens) + tokens * done * pairs)
        assert 3 <= len(passes) <= most
        assert all(done == at * tokens for at, (tokens, done) in enumerate(passes))


def test_no_pass_after_more_tokens_is_timed_where_each_is_a_dear_new_shape():
    pace = Pace(0.1, 2.0)
    tried(pace, new_shape=0.08)
    assert not list(pace.depths())


def some(passes, count):
    """Yield the first of the passes to time, as where there is no room for the next ones."""
    with closing(passes):
        yield from islice(passes, count)


def test_passes_count_although_a_short_context_has_no_room_for_the_next_ones():
    pace, small = Pace(0.1, 2.0), Pace(0.1, 2.0)
    for one in (pace, small):
        for tokens in some(one.trials(), 4):
            one.tried(tokens, [pass_time(tokens)] * 3)
    for tokens, done in some(small.depths(), 2):
        small.deepened(tokens, done, pass_time(tokens) + tokens * done * 1e-5)
    assert small.budget(500) < pace.budget(500) / 2


@pytest.mark.parametrize("slow", [1, 2])
def test_a_repeated_pass_that_others_slowed_does_not_hide_that_new_shapes_are_dear(slow):
    pace, quiet = Pace(0.1), Pace(0.1)
    for one in (pace, quiet):
        for number, tokens in enumerate(one.trials()):
            seconds = [pass_time(tokens) + 0.08 * (tokens > 1), *[pass_time(tokens)] * 2]
            if one is pace and number == 2:
                seconds[slow] *= 5
            one.tried(tokens, seconds)
    assert pace._cost.new_shape == quiet._cost.new_shape > 0.05
    assert pace.budget(0) == quiet.budget(0)


@pytest.mark.parametrize("slow", [{0, 1}, {1, 2}, {0, 1, 2}])
def test_a_trial_that_others_slowed_does_not_count(slow):
    pace, quiet = Pace(0.1), Pace(0.1)
    for one in (pace, quiet):
        for number, tokens in enumerate(one.trials()):
            ran = one is pace and number == 1
            one.tried(
                tokens, [pass_time(tokens) * (4 if ran and n in slow else 1) for n in range(3)]
            )
    for tokens in (1, 16, 64):
        assert pace.cost.seconds(tokens, 0) == pytest.approx(quiet.cost.seconds(tokens, 0), rel=0.1)


@pytest.mark.parametrize("slow", [{0}, {1}, {1, 2}, {2, 3}])
def test_passes_after_more_tokens_that_others_slowed_show_no_cost_of_attention(slow):
    pace, quiet = Pace(0.1), Pace(0.1)
    for one in (pace, quiet):
        tried(one)
        for number, (tokens, done) in enumerate(one.depths()):
            slowed = 3 + number if one is pace and number in slow else 1
            one.deepened(tokens, done, pass_time(tokens) * slowed)
    for context in (0, 4000):
        assert pace.budget(context) == pytest.approx(quiet.budget(context), rel=0.1)
