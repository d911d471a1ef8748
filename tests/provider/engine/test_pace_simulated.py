"""Pace on simulated machines: a prompt's time and the longest gap, beside the best there is."""

from dataclasses import replace
from itertools import product

import pytest

from provider.engine.pace import MAX_CHUNK
from tests.support.pace_simulator import (
    MS,
    NEW_SHAPE,
    SURPRISES,
    TIMES,
    TOKENS,
    VARIANTS,
    WORST,
    Case,
    Machine,
    compared,
    simulate,
    variants,
)

# Each pair of a decode step and a fixed cost, each with another cost of a token.
MACHINES = [
    Machine(step * MS, fixed * MS, TOKENS[(at + 2 * (at // 5)) % 5] * MS)
    for at, (step, fixed) in enumerate(product(TIMES, TIMES))
]


def prompt_for(machine, most=8192):
    """Return the length of a prompt that takes no more than some hundred chunks."""
    return most if machine.token < 1 * MS else 2000


def holds(case, seed=1):
    ours, best = compared(case, seed)
    assert ours.seconds <= WORST * best.seconds, (case, seed, ours, best)
    assert ours.late <= (SURPRISES if case.machine.surprising else 0), (case, seed, ours, best)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_prompt_is_read_nearly_as_fast_as_can_be_within_the_allowed_gap(name):
    for seed, machine in enumerate(MACHINES):
        holds(Case(variants(machine)[name], prompt_for(machine)), seed)


def test_hardly_any_prompt_takes_longer_where_others_slow_three_passes_in_ten():
    machines = [variants(machine)["many spikes"] for machine in MACHINES]
    cases = [Case(machine, prompt_for(machine)) for machine in machines]
    ratios = []
    for seed, case in enumerate(4 * cases, 100):
        ours, best = compared(case, seed)
        ratios.append(ours.seconds / best.seconds)
    assert sum(ratio <= WORST for ratio in ratios) >= 0.95 * len(ratios)
    assert max(ratios) < 2


TYPICAL = [
    Machine(5 * MS, 5 * MS, 0.1 * MS, noise=0.03),
    Machine(35 * MS, 35 * MS, 0.4 * MS, noise=0.03),
    Machine(11 * MS, 55 * MS, 1.5 * MS, noise=0.03),
]


@pytest.mark.parametrize("streams", [8, 32])
@pytest.mark.parametrize("models", [1, 3])
def test_it_is_so_beside_many_streams_and_models(streams, models):
    for machine in TYPICAL:
        holds(Case(machine, prompt_for(machine, 4000), streams, models))


@pytest.mark.parametrize("prompt", [1000, 20_000, 100_000])
def test_it_is_so_for_short_and_for_long_prompts(prompt):
    for machine in TYPICAL[: 3 if prompt < 10_000 else 1]:
        holds(Case(machine, prompt))


def test_a_second_prompt_is_read_faster_where_new_shapes_are_dear():
    machine = Machine(7 * MS, 10 * MS, 0.02 * MS, new_shape=NEW_SHAPE)
    first, second = (simulate(Case(machine, prompts=prompts)) for prompts in (1, 2))
    assert second.seconds < 0.8 * first.seconds


@pytest.mark.parametrize("slowdown", [1.3, 2.0, 4.0])
def test_the_setting_says_how_much_slower_than_alone_a_prompt_gets(slowdown):
    machine = Machine(35 * MS, 35 * MS, 0.4 * MS)
    ours = simulate(Case(machine, gap=0.02, slowdown=slowdown))
    alone = sum(float(machine.costs(MAX_CHUNK, at)) for at in range(0, 8192, MAX_CHUNK))
    assert 0.9 * slowdown < ours.seconds / alone < 1.15 * slowdown
    # So a gap is longer than the shortest that there can be, by no more than this.
    assert ours.gap < 1.1 * (machine.fixed + machine.step) * slowdown / (slowdown - 1)


def test_a_stricter_gap_is_kept_where_it_can_be():
    machine = replace(TYPICAL[0], step=2 * MS, fixed=2 * MS)
    ours = simulate(Case(machine, gap=0.02))
    assert ours.gap < WORST * 0.02
