from hypothesis import given
from hypothesis import strategies as st

from provider.scheduler import BUSY_CHUNK, IDLE_CHUNK, Scheduler


def test_first_come_first_served_up_to_the_batch():
    scheduler = Scheduler(2)
    for key in "abc":
        scheduler.submit(key)
    assert scheduler.admit() == ["a", "b"]
    assert scheduler.admit() == []
    assert scheduler.moved() == [("c", 1)]
    scheduler.remove("a")
    assert scheduler.admit() == ["c"]


def test_a_position_is_told_once_and_again_when_it_changes():
    scheduler = Scheduler(1)
    for key in "abcd":
        scheduler.submit(key)
    scheduler.admit()
    assert scheduler.moved() == [("b", 1), ("c", 2), ("d", 3)]
    assert scheduler.moved() == []
    scheduler.remove("b")
    assert scheduler.moved() == [("c", 1), ("d", 2)]


def test_chunks_are_small_only_while_something_decodes():
    scheduler = Scheduler(4)
    scheduler.submit("a")
    scheduler.admit()
    assert scheduler.prefill_chunk() == IDLE_CHUNK
    scheduler.decoding("a")
    assert scheduler.prefill_chunk() == BUSY_CHUNK
    scheduler.remove("a")
    assert scheduler.prefill_chunk() == IDLE_CHUNK


def test_removing_tells_whether_it_ran_and_twice_does_no_harm():
    scheduler = Scheduler(1)
    scheduler.submit("a")
    scheduler.submit("b")
    scheduler.admit()
    assert scheduler.remove("a")
    assert not scheduler.remove("a")
    assert not scheduler.remove("b")
    assert len(scheduler) == 0


@given(st.integers(1, 4), st.lists(st.sampled_from(["submit", "admit", "first", "last"])))
def test_the_batch_is_never_overfull_and_order_is_kept(max_batch, actions):
    scheduler: Scheduler[int] = Scheduler(max_batch)
    submitted, admitted, live = 0, [], []
    for action in actions:
        if action == "submit":
            scheduler.submit(submitted)
            live.append(submitted)
            submitted += 1
        elif action == "admit":
            admitted += scheduler.admit()
        elif live:
            scheduler.remove(live.pop(0 if action == "first" else -1))
        assert scheduler.running <= max_batch
        assert len(scheduler) == len(live)
    assert admitted == sorted(admitted)
