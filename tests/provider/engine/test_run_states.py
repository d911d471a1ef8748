"""The states of a run, as a table."""

import subprocess
import sys

import pytest

from provider.engine.run_states import TRANSITIONS, RunState, Transition, next_state


def test_every_state_has_its_row_and_every_transition_its_place():
    assert set(TRANSITIONS) == set(RunState)
    assert {one for after in TRANSITIONS.values() for one in after} == set(Transition)


def reachable(state, seen=()):
    for after in TRANSITIONS[state].values():
        if after not in seen:
            seen = reachable(after, (*seen, after))
    return seen


def test_every_state_follows_from_the_first_and_leads_to_the_end():
    assert set(reachable(RunState.POSTED)) == set(RunState) - {RunState.POSTED}
    for state in RunState:
        assert state is RunState.ENDED or RunState.ENDED in reachable(state)


def test_what_was_taken_can_be_cancelled_and_can_fail_wherever_it_is():
    for state in set(RunState) - {RunState.POSTED, RunState.ENDED}:
        assert next_state(state, Transition.CANCEL) is RunState.ENDED
        assert next_state(state, Transition.FAIL) is RunState.ENDED


@pytest.mark.parametrize("transition", Transition)
def test_nothing_follows_the_end(transition):
    with pytest.raises(AssertionError, match=f"a run that is ended was told to {transition}"):
        next_state(RunState.ENDED, transition)


def test_the_table_can_be_drawn_without_mlx():
    code = (
        "import sys; from provider.engine.run_states import TRANSITIONS; "
        "print(sorted({'mlx', 'mlx_lm', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
