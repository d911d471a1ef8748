"""What several answers to one prompt share."""

from provider.engine.shared_prompt import SharedPrompt, SharedPrompts


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


def kept(prompts, nbytes, *others):
    shared = SharedPrompt(leader=1, ready=True, others=set(others))
    prompts.keep(shared, ["layer"], 7, nbytes)
    return shared


def test_the_caches_of_prompts_count_until_the_last_answer_has_begun():
    prompts = SharedPrompts()
    one, _ = kept(prompts, 10, 2, 3), kept(prompts, 5, 4)
    assert (one.caches, one.length, prompts.nbytes) == (["layer"], 7, 15)
    one.begun(2)
    assert prompts.nbytes == 15
    one.begun(3)
    assert prompts.nbytes == 5


def test_asking_for_the_size_changes_nothing_and_prompts_that_have_begun_are_not_remembered():
    prompts = SharedPrompts()
    for key in range(10):
        one = kept(prompts, 10, key)
        before = list(prompts._kept)
        one.begun(key)
        assert prompts.nbytes == 0
        assert prompts._kept == before
    assert prompts._kept == [one]


def test_the_caches_kept_longest_go_first_and_spared_ones_stay():
    prompts = SharedPrompts()
    first, second, third = (kept(prompts, 10, 2) for _ in range(3))
    prompts.shrink(25, spared=first)
    assert [one.caches for one in (first, second, third)] == [["layer"], None, ["layer"]]
    prompts.shrink(0, spared=first)
    assert prompts.nbytes == 10
    prompts.shrink(0)
    assert (first.caches, prompts.nbytes) == (None, 0)


def test_the_caches_are_left_to_the_last_answer_alone():
    shared = kept(SharedPrompts(), 10, 2, 3)
    assert shared.left_to(2) == 0
    shared.begun(3)
    assert (shared.left_to(2), shared.left_to(9)) == (10, 0)
    shared.caches = None
    assert shared.left_to(2) == 0
