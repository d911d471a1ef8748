from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from provider.engine.pace import MAX_CHUNK, MIN_CHUNK
from provider.engine.prompt_share import BURST_S, PromptShare
from provider.engine.scheduler import (
    LINGER,
    MAX_ASKED,
    MAX_PADDING,
    MAX_TOLD,
    Scheduler,
    may_go_on,
    must_park,
)
from provider.engine.step_share import CURVE, LEAST, StepShare


def of_one_client(max_batch):
    return Scheduler(max_batch, lambda key: "", StepShare(1.15), PromptShare(0.2))


def with_prompts(lengths, max_batch=64):
    scheduler = of_one_client(max_batch)
    for key in lengths:
        scheduler.submit(key)
    for key in scheduler.admit():
        scheduler.read(key, lengths[key])
    return scheduler


def test_first_come_first_served_up_to_the_batch():
    scheduler = of_one_client(2)
    for key in "abc":
        scheduler.submit(key)
    assert scheduler.admit() == ["a", "b"]
    assert scheduler.admit() == []
    assert scheduler.moved() == [("c", 1)]
    scheduler.remove("a")
    assert scheduler.admit() == ["c"]


def test_a_deferred_run_leaves_the_queue_until_it_comes_back_first():
    scheduler = of_one_client(1)
    for key in "abc":
        scheduler.submit(key)
    deferred = {"a"}
    assert scheduler.admit(deferred=deferred.__contains__) == ["b"]
    assert scheduler.moved() == [("c", 1)]
    assert len(scheduler) == 2
    scheduler.resume("a")
    deferred.clear()
    assert scheduler.moved() == [("a", 1), ("c", 2)]
    scheduler.remove("b")
    assert scheduler.admit(deferred=deferred.__contains__) == ["a"]


def test_a_run_is_not_deferred_before_there_is_a_place_for_it():
    scheduler, asked = of_one_client(1), []
    for key in "ab":
        scheduler.submit(key)
    scheduler.admit(deferred=asked.append)
    assert asked == ["a"]


def test_a_run_that_does_not_fit_holds_up_its_own_client_alone():
    scheduler = of_clients(9, "a1", "a2", "b1", "b2", "c1")
    assert scheduler.admit(lambda key: key != "a1") == ["b1", "c1", "b2"]
    assert scheduler.waiting == 2


def test_no_run_yields_its_place_to_one_that_does_not_fit():
    scheduler = of_clients(2, "a1", "a2", "b1")
    assert scheduler.admit(lambda key: key != "b1") == ["a1", "a2"]
    for key in ("a1", "a2"):
        scheduler.read(key, 0)
    assert scheduler.must_yield() is None
    scheduler.submit("c1")
    assert scheduler.must_yield() == "a1"
    scheduler.remove("c1")
    scheduler.park("a1")
    scheduler.resume("a1")
    assert scheduler.admit(lambda key: key != "a1") == ["b1"], "it is tried again"


def test_the_awaited_run_is_asked_for_first():
    scheduler, asked = of_clients(9, "a1", "b1", "c1"), []
    assert scheduler.admit(asked.append, awaited=lambda: "c1") == []
    assert asked == ["c1", "a1", "b1"]
    scheduler.remove("c1")
    assert scheduler.admit(awaited=lambda: "c1") == ["a1", "b1"]


def test_runs_of_a_bounded_number_of_clients_are_tried_in_a_step():
    scheduler, asked = of_clients(9, *map(chr, range(ord("A"), ord("A") + 2 * MAX_ASKED))), []
    assert scheduler.admit(asked.append) == []
    assert len(asked) == MAX_ASKED


def of_clients(max_batch, *keys):
    """Return a scheduler with runs of the client that the first letter of each names."""
    scheduler = Scheduler(max_batch, lambda key: key[0], StepShare(1.15), PromptShare(0.2))
    for key in keys:
        scheduler.submit(key)
    return scheduler


def decode(scheduler):
    for key in scheduler.admit():
        scheduler.read(key, 0)


def test_a_client_with_one_run_does_not_wait_for_all_runs_of_another():
    scheduler = of_clients(2, "a1", "a2", "a3", "a4", "b1")
    assert scheduler.admit() == ["a1", "b1"]
    scheduler.remove("b1")
    assert scheduler.admit() == ["a2"]
    scheduler.submit("c1")
    assert scheduler.moved() == [("c1", 1), ("a3", 2), ("a4", 3)]


def test_a_client_with_more_places_gives_one_to_a_newcomer():
    scheduler = of_clients(3, "a1", "a2", "a3", "a4")
    decode(scheduler)
    assert scheduler.must_yield() is None
    for newcomer, oldest in (("b1", "a1"), ("c1", "a2")):
        scheduler.submit(newcomer)
        assert scheduler.must_yield() == oldest
        scheduler.park(oldest)
        assert scheduler.must_yield() is None  # there is a free place
        scheduler.resume(oldest)
        decode(scheduler)
        assert scheduler.must_yield() is None
    assert scheduler.moved() == [("a2", 1), ("a1", 2), ("a4", 3)]


def test_the_longest_in_the_batch_gives_way_before_prompts_do():
    scheduler = of_clients(3, "a1", "a2", "a3")
    for key in scheduler.admit():
        scheduler.read(key, 5)
    scheduler.submit("b1")
    scheduler.read("a2", 0)
    scheduler.read("a1", 0)
    assert scheduler.must_yield() == "a2"


def test_of_a_client_whose_prompts_are_all_read_the_last_one_gives_way():
    scheduler = of_clients(4, "a1", "a2", "a3", "b1")
    for key in scheduler.admit():
        scheduler.read(key, 5)
    scheduler.read("b1", 0)
    scheduler.submit("c1")
    assert scheduler.must_yield() == "a3"


@given(st.integers(1, 8), st.lists(st.integers(1, 12), min_size=2, max_size=4), st.data())
def test_prompts_that_give_way_come_and_go_not_and_each_client_keeps_its_first(
    max_batch, counts, data
):
    scheduler = of_clients(max_batch)
    clients, kept = iter("abcd"), {}
    for count in counts:
        client = next(clients)
        for n in range(count):
            scheduler.submit(f"{client}{n}")
        yielded = 0
        while True:
            for key in scheduler.admit():
                scheduler.read(key, data.draw(st.integers(1, 3000)))
                kept.setdefault(key[0], key)
            key = scheduler.must_yield()
            if key is None:
                break
            assert key != kept[key[0]]
            assert key[0] != client
            scheduler.park(key)
            scheduler.resume(key)
            yielded += 1
        assert yielded <= count
        places = [clients_in(scheduler).count(one) for one in {key[0] for key in kept}]
        waiting = {key[0] for key in scheduler._waiting._keys}
        least = min((clients_in(scheduler).count(one) for one in waiting), default=max_batch)
        assert max(places) <= least + 1


def test_a_nearly_equal_share_of_the_batch_is_left_as_it_is():
    scheduler = of_clients(3, "a1", "a2", "b1", "b2", "a3")
    decode(scheduler)
    assert scheduler.must_yield() is None


def costly_rows(*clients):
    """Return a scheduler of 16 places whose steps take as long as half of them, and a half more."""
    share = StepShare(1.2)
    for rows in (1, 2, 4, 8, 16):
        for _ in range(CURVE + LEAST):
            share.took(rows, 8.0 + rows)
    scheduler = Scheduler(16, lambda key: key[0], share, PromptShare(0.2))
    for key in clients:
        scheduler.submit(key)
    return scheduler


MANY = [f"a{n}" for n in range(10, 40)]


def clients_in(scheduler):
    return "".join(sorted(key[0] for key in scheduler._in_batch))


def give_way(scheduler):
    """Let runs leave one after the other; return which."""
    left = []
    while (key := scheduler.must_yield()) is not None:
        scheduler.park(key)
        scheduler.resume(key)
        assert not scheduler.admit(), "it would come and go"
        left.append(key)
    return left


def test_a_client_that_is_alone_has_all_places():
    scheduler = costly_rows(*MANY)
    decode(scheduler)
    assert clients_in(scheduler) == 16 * "a"
    assert scheduler.must_yield() is None


def test_one_client_has_not_so_many_places_that_others_are_slowed():
    scheduler = costly_rows(*MANY, "b1", "c1", "d1")
    decode(scheduler)
    assert clients_in(scheduler) == "aaabcd"  # a step of 14 beside one of 12


def test_runs_of_a_client_that_was_alone_leave_one_a_turn_and_are_back_once_others_have_gone():
    scheduler = costly_rows(*MANY)
    decode(scheduler)
    scheduler.submit("b1")
    assert scheduler.must_yield() == "a10", "for a place, the longest in the batch"
    scheduler.park("a10")
    scheduler.resume("a10")
    decode(scheduler)
    assert clients_in(scheduler) == 15 * "a" + "b"
    assert give_way(scheduler) == [f"a{n}" for n in range(25, 13, -1)], "the newest first"
    assert clients_in(scheduler) == "aaab"  # a step of 12 beside one of 10
    scheduler.remove("b1")
    for _ in range(LINGER):
        assert scheduler.admit() == []
        assert scheduler.must_yield() is None
    decode(scheduler)
    assert clients_in(scheduler) == 16 * "a"


def test_a_run_that_is_awaited_enters_beside_others():
    scheduler = costly_rows(*MANY, "b1")
    decode(scheduler)
    assert scheduler.admit(awaited=lambda: "a39") == ["a39"]


def test_equal_parts_are_left_as_they_are_however_long_steps_take():
    scheduler = costly_rows(*MANY, *(f"b{n}" for n in range(10, 40)))
    decode(scheduler)
    assert clients_in(scheduler) == 8 * "a" + 8 * "b"
    assert scheduler.must_yield() is None


def test_the_prompts_of_clients_are_read_in_turn():
    scheduler = of_clients(8, "a1", "a2", "a3", "b1", "c1")
    left = {"a1": 100, "a2": 100, "a3": 5, "b1": 100, "c1": 5}
    for key in scheduler.admit():
        scheduler.read(key, left[key])
    read = []
    for _ in range(4):
        first = scheduler.oldest
        plan = scheduler.plan(50)
        assert first in [key for key, _ in plan] or scheduler.oldest == first
        for key, n in plan:
            left[key] -= n
            scheduler.read(key, left[key])
        read.append([key for key, _ in plan])
    assert read == [["a1"], ["c1", "a3"], ["b1"], ["a1"]]


def test_prompts_of_a_client_that_have_taken_long_wait_while_anothers_run_decodes():
    scheduler = of_clients(8, "a1", "b1", "c1")
    for key, left in zip(scheduler.admit(), (1000, 0, 30), strict=True):
        scheduler.read(key, left)
    scheduler.prefilled([("a1", 100)], 2 * BURST_S, 100.0)
    assert scheduler.oldest == "a1", "as `hold` has not been called yet"
    scheduler.hold(100.0)
    assert scheduler.plan(50) == [("c1", 30)]
    scheduler.read("c1", 0)
    assert scheduler.oldest is None
    assert scheduler.plan(50) == []
    scheduler.hold(101.0 + 2 * BURST_S / 0.2)
    assert scheduler.oldest == "a1"


def test_prompts_wait_for_nobody_while_only_their_clients_runs_decode():
    scheduler = of_clients(8, "a1", "a2", "b1")
    for key, left in zip(scheduler.admit(), (1000, 0, 0), strict=True):
        scheduler.read(key, left)
    scheduler.prefilled([("a1", 100)], 2 * BURST_S, 100.0)
    scheduler.remove("b1")
    scheduler.hold(100.0)
    assert scheduler.oldest == "a1"


def test_a_client_that_is_alone_is_not_counted():
    scheduler = of_clients(8, "a1", "a2")
    for key, left in zip(scheduler.admit(), (1000, 0), strict=True):
        scheduler.read(key, left)
    scheduler.prefilled([("a1", 100)], 2 * BURST_S, 100.0)
    scheduler.submit("b1")
    for key in scheduler.admit():
        scheduler.read(key, 0)
    scheduler.hold(100.0)
    assert scheduler.oldest == "a1"


def test_a_common_chunk_counts_for_each_client_by_its_tokens():
    scheduler = of_clients(8, "a1", "b1", "c1")
    for key, left in zip(scheduler.admit(), (1000, 1000, 0), strict=True):
        scheduler.read(key, left)
    scheduler.prefilled([("a1", 90), ("b1", 10)], 1.5 * BURST_S, 100.0)
    scheduler.hold(100.0)
    assert scheduler.oldest == "b1"


def test_few_changed_places_are_told_at_once_and_the_others_soon():
    scheduler = of_one_client(1)
    keys = range(3 * MAX_TOLD)
    for key in keys:
        scheduler.submit(key)
    told = []
    while some := scheduler.moved():
        assert len(some) <= MAX_TOLD
        told += some
    assert told == [(key, key + 1) for key in keys]
    scheduler.remove(0)
    scheduler.submit("new")
    assert scheduler.moved()[:2] == [("new", 3 * MAX_TOLD), (1, 1)]


def test_a_position_is_told_once_and_again_when_it_changes():
    scheduler = of_one_client(1)
    for key in "abcd":
        scheduler.submit(key)
    scheduler.admit()
    assert scheduler.moved() == [("b", 1), ("c", 2), ("d", 3)]
    assert scheduler.moved() == []
    scheduler.remove("b")
    assert scheduler.moved() == [("c", 1), ("d", 2)]


def test_removing_twice_does_no_harm():
    scheduler = with_prompts({"a": 5, "b": 0})
    for _ in range(2):
        scheduler.remove("a")
        scheduler.remove("b")
    assert len(scheduler) == 0
    assert scheduler.plan(MAX_CHUNK) == []


def test_a_run_that_is_read_again_can_be_parked():
    scheduler = of_one_client(1)
    scheduler.submit("first")
    scheduler.admit()
    scheduler.read("first", 0)
    scheduler.read("first", 9)
    scheduler.park("first")
    assert scheduler.running == 0
    assert scheduler.plan(100) == []
    scheduler.resume("first")
    assert scheduler.admit() == ["first"]


def test_a_parked_run_gives_its_slot_away_and_comes_back_first():
    scheduler = with_prompts({"a": 0, "b": 0}, max_batch=2)
    scheduler.submit("c")
    scheduler.submit("d")
    scheduler.park("a")
    assert scheduler.admit() == ["c"]
    scheduler.resume("a")
    scheduler.resume("a")
    scheduler.remove("b")
    assert scheduler.admit() == ["a"]
    assert scheduler.waiting == 1


def test_streaming_means_that_a_reader_has_seen_something():
    scheduler = with_prompts({"a": 10})
    scheduler.stream("a")
    assert not scheduler.streaming  # its prompt is still being read
    scheduler.read("a", 0)
    assert not scheduler.streaming
    scheduler.stream("a")
    assert scheduler.streaming
    scheduler.park("a")
    assert not scheduler.streaming


def test_a_run_whose_forward_pass_failed_is_read_again():
    scheduler = with_prompts({"a": 10})
    scheduler.read("a", 0)
    assert scheduler.plan(MAX_CHUNK) == []
    scheduler.read("a", 7)
    assert scheduler.plan(MAX_CHUNK) == [("a", 7)]


def test_short_prompts_are_read_together_and_to_their_ends():
    scheduler = with_prompts({"a": 10, "b": 12, "c": 11})
    assert scheduler.plan(40) == [("a", 10), ("b", 12), ("c", 11)]
    assert scheduler.plan(30) == [("a", 10), ("b", 12)]
    assert scheduler.plan(40, together=False) == [("a", 10)]


def test_a_long_prompt_is_read_by_chunks_in_turn_with_short_ones():
    scheduler = with_prompts({"long": 100, "b": 5, "c": 6})
    assert scheduler.plan(20) == [("long", 20)]
    assert scheduler.plan(20) == [("b", 5), ("c", 6)]
    assert scheduler.plan(20) == [("long", 20)]


def test_prompts_of_very_different_lengths_are_not_padded_to_each_other():
    scheduler = with_prompts({"a": 1000, "b": 5, "c": 5})
    assert scheduler.plan(MAX_CHUNK) == [("a", 1000)]


LENGTHS = st.dictionaries(st.integers(0, 30), st.integers(1, 3000), min_size=1)


@given(LENGTHS, st.integers(MIN_CHUNK, MAX_CHUNK), st.booleans())
def test_every_prompt_is_read_within_the_budget(lengths, budget, together):
    scheduler = with_prompts(dict(lengths))
    left = dict(lengths)
    for _ in range(10_000):
        plan = scheduler.plan(budget, together=together)
        if not plan:
            break
        padded = max(n for _, n in plan) * len(plan)
        assert padded <= budget
        assert padded - sum(n for _, n in plan) <= MAX_PADDING * len(plan)
        assert len(plan) == 1 or all(left[key] == n for key, n in plan)
        for key, n in plan:
            assert 0 < n <= left[key]
            left[key] -= n
            scheduler.read(key, left[key])
    assert not any(left.values())


@given(LENGTHS, st.integers(MIN_CHUNK, MAX_CHUNK))
def test_a_short_prompt_waits_for_one_chunk_of_a_long_one_at_most(lengths, budget):
    left = {"long": 20 * budget, **lengths, "short": 1}
    scheduler = with_prompts(dict(left))
    chunks = dict.fromkeys(left, 0)
    while left["short"]:
        for key, n in scheduler.plan(budget):
            left[key] -= n
            chunks[key] += 1
            scheduler.read(key, left[key])
    assert chunks["long"] <= len(lengths) + 1


@given(st.integers(1, 4), st.lists(st.sampled_from(["submit", "admit", "first", "last", "park"])))
def test_the_batch_is_never_overfull_and_order_is_kept(max_batch, actions):
    scheduler = of_one_client(max_batch)
    submitted, admitted, live = 0, [], []
    for action in actions:
        if action == "submit":
            scheduler.submit(submitted)
            live.append(submitted)
            submitted += 1
        elif action == "admit":
            admitted += scheduler.admit()
            for key in admitted:
                scheduler.read(key, 0)
        elif live:
            key = live.pop(0 if action == "first" else -1)
            (scheduler.park if action == "park" else scheduler.remove)(key)
            scheduler.remove(key)
        assert scheduler.running <= max_batch
        assert len(scheduler) == len(live)
    assert admitted == sorted(admitted)


@dataclass
class Read:
    """How far a reader is."""

    unread: int
    caught_up: bool = False


def test_a_run_is_parked_when_its_reader_leaves_too_much_and_goes_on_at_half_of_it():
    assert not must_park(Read(9), 10)
    assert must_park(Read(10), 10)
    assert not must_park(Read(10, caught_up=True), 10)
    assert not may_go_on(Read(6), 10)
    assert may_go_on(Read(5), 10)
    assert may_go_on(Read(10, caught_up=True), 10)


@given(st.integers(0, 300), st.integers(1, 200), st.booleans())
def test_what_goes_on_is_not_parked_at_once(unread, limit, caught_up):
    run = Read(unread, caught_up)
    if may_go_on(run, limit):
        assert not must_park(run, limit)
