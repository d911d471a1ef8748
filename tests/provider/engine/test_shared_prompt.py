"""What several answers to one prompt share."""

from provider.engine.shared_prompt import SharedPrompt


def test_the_caches_stay_until_the_last_of_the_others_has_begun():
    shared = SharedPrompt(caches=["layer"], length=1, leader=1, ready=True, others={2, 3})
    shared.begun(2)
    assert shared.caches == ["layer"]
    shared.begun(3)
    assert shared.caches is None


def test_one_that_came_late_leaves_the_caches_of_those_that_wait():
    shared = SharedPrompt(caches=["layer"], length=1, leader=1, ready=True, others={2})
    shared.begun(9)
    assert shared.caches == ["layer"]


def test_nothing_is_given_up_before_the_prompt_is_read():
    shared = SharedPrompt(caches=["layer"], leader=1, others={2})
    shared.begun(2)
    assert shared.caches == ["layer"]
