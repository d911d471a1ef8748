"""How long a client's prompts may take beside others' runs."""

import pytest

from provider.engine.prompt_share import BURST_S, TIDY, PromptShare

CHUNK_S = 0.1
STEP_S = 0.01


def read(share, seconds, clients="a", now=0.0, others=1):
    """Read prompts in turn, each with a step; return how long those of each client took."""
    end, taken = now + seconds, dict.fromkeys(clients, 0.0)
    while now < end:
        client = min(taken, key=taken.get)
        if not share.owes(client, now, others):
            now += CHUNK_S
            taken[client] += CHUNK_S
            share.took(client, CHUNK_S, now, others)
        now += STEP_S
    return taken


def test_the_first_prompts_of_a_client_are_read_as_fast_as_they_can_be():
    whole = BURST_S * 1.1
    assert read(PromptShare(0.2), whole)["a"] >= 0.9 * BURST_S


def test_prompt_after_prompt_takes_its_share_and_no_more():
    taken = read(PromptShare(0.2), 1000.0)["a"]
    assert 0.2 * 1000.0 <= taken <= 0.2 * 1000.0 + BURST_S + 2 * CHUNK_S


@pytest.mark.parametrize(("others", "part"), [(1, 1.0), (2, 2 / 3), (3, 0.5), (4, 0.5), (30, 0.5)])
def test_the_share_is_divided_among_the_clients_there_are(others, part):
    taken = read(PromptShare(0.4), 1000.0, others=others)["a"]
    bound = part * 0.4 * 1000.0
    assert bound <= taken <= bound + BURST_S + 2 * CHUNK_S


def test_what_is_owed_beside_many_is_made_up_for_beside_few():
    share = PromptShare(0.4)
    share.took("a", BURST_S + 1.0, 0.0, 3)
    assert share.owes("a", 4.0, 3)
    assert not share.owes("a", 4.0, 1)


def test_each_client_has_a_share():
    taken = read(PromptShare(0.2), 1000.0, "ab")
    assert min(taken.values()) >= 200.0


def test_what_a_client_owed_is_forgotten_once_it_has_waited():
    share = PromptShare(0.2)
    read(share, 100.0)
    assert share.owes("a", 100.0, 1)
    assert not share.owes("b", 100.0, 1)
    later = 101.0 + BURST_S / 0.2
    assert read(share, BURST_S, now=later)["a"] >= 0.9 * BURST_S


def test_a_whole_share_is_no_bound():
    share = PromptShare(1.0)
    assert read(share, 100.0)["a"] > 90.0


def test_clients_that_owe_nothing_are_not_remembered():
    share = PromptShare(0.2)
    for number in range(10 * TIDY):
        share.took(number, 0.001, float(number), 1)
    assert len(share._taken) <= TIDY + 1
