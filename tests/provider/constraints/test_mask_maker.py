"""Masks are made on threads: a costly one is late, and holds up nothing but its own row."""

import threading

import numpy as np
import pytest

from provider.constraints import mask_maker
from provider.constraints.mask_maker import MaskJob, MaskMaker
from provider.constraints.matcher import COSTLY_S, PROVEN, SharedGrammar
from provider.interface import GenerationError


class Staged:
    """A constraint whose masks are made when they are let, each of one token."""

    bound, simple = True, False

    def __init__(self, token=1, *, slow=False, shared=None, error=None):
        self.token, self.slow, self.error = token, slow, error
        self.shared = shared or SharedGrammar()
        self.masks, self.mask_seconds = 0, 0.0
        self.begun, self.free = threading.Event(), threading.Event()
        self.thread = None
        self.free.set()

    def follow(self, length, last, answer):
        assert list(answer())[-1] == last
        self.thread = threading.current_thread()
        self.begun.set()
        assert self.free.wait(timeout=30)
        if self.error is not None:
            raise self.error

    def write(self, mask):
        mask[:] = self.token


def job_of(constraint, client=None):
    return MaskJob(constraint, (1, 7, lambda: [7]), np.zeros(2, np.uint32), client)


def held(**options):
    made = Staged(**options)
    made.free.clear()
    return made


@pytest.fixture
def maker(monkeypatch):
    monkeypatch.setattr(mask_maker, "MAX_WAIT_S", 0.2)
    made, constraints = MaskMaker(), []

    def make(*given, clients=()):
        constraints.extend(given)
        jobs = [
            job_of(one, client)
            for one, client in zip(given, clients or [None] * len(given), strict=True)
        ]
        made.make(jobs)
        return jobs

    made.jobs_of = make
    yield made
    for one in constraints:
        one.free.set()
    made.close()


def ripen(maker, *jobs):
    """Wait until late masks are done."""
    for _ in range(3000):
        if all(job.done for job in jobs):
            return
        maker.wait(0.01)
    raise AssertionError("the masks stay late")


def test_the_masks_of_a_step_are_made_in_order_before_it_goes_on(maker):
    jobs = maker.jobs_of(*(Staged(n) for n in range(5)))
    assert [job.done for job in jobs] == [True] * 5
    assert [job.mask.tolist() for job in jobs] == [[n, n] for n in range(5)]
    assert all(job.constraint.thread is not threading.current_thread() for job in jobs)


def test_a_mask_that_takes_too_long_is_late_and_the_next_step_waits_for_others_alone(maker):
    first = maker.jobs_of(Staged(), stuck := held(), Staged())
    assert first[0].done
    assert not first[1].done
    ripen(maker, first[2])  # it was behind the one that is stuck
    for _ in range(3):
        assert all(job.done for job in maker.jobs_of(Staged(), Staged()))
    stuck.free.set()
    ripen(maker, first[1])
    assert first[1].mask.tolist() == [1, 1]


def test_where_all_threads_are_stuck_no_step_waits(maker, monkeypatch):
    late = [*maker.jobs_of(held()), *maker.jobs_of(held())]
    monkeypatch.setattr(mask_maker, "MAX_WAIT_S", 3600)
    more = maker.jobs_of(Staged(), Staged())
    ripen(maker, *more)  # by the thread of slow rows
    assert not any(job.done for job in late)


def test_no_step_waits_for_a_row_that_is_known_to_be_slow(maker, monkeypatch):
    monkeypatch.setattr(mask_maker, "MAX_WAIT_S", 3600)
    slow, quick = maker.jobs_of(held(slow=True), Staged())
    assert quick.done
    assert not slow.done
    slow.constraint.free.set()
    ripen(maker, slow)


def test_the_clients_of_slow_rows_take_turns(maker):
    first = held(slow=True)
    maker.jobs_of(first)
    assert first.begun.wait(timeout=30)
    order = []

    class Noting(Staged):
        def write(self, mask):
            order.append(self.token)

    rows = [Noting(name, slow=True) for name in ("a1", "a2", "a3", "b1", "c1", "b2")]
    jobs = maker.jobs_of(*rows, clients=[row.token[0] for row in rows])
    first.free.set()
    ripen(maker, *jobs)
    assert order[:3] == ["a1", "b1", "c1"]  # the others by the time that these have taken
    assert [name for name in order if name[0] == "a"] == ["a1", "a2", "a3"]


def test_two_masks_of_one_grammar_are_never_made_at_the_same_time(maker):
    shared = SharedGrammar()
    first = held(slow=True, shared=shared)
    (late,) = maker.jobs_of(first)
    assert first.begun.wait(timeout=30)
    same, other = maker.jobs_of(Staged(shared=shared), Staged())
    assert other.done  # it did not wait for the lock
    assert not same.done
    assert not same.constraint.begun.is_set()
    first.free.set()
    ripen(maker, late, same)


def test_a_mask_that_nobody_waits_for_is_not_made(maker):
    first = held(slow=True)
    maker.jobs_of(first)
    assert first.begun.wait(timeout=30)
    gone, other = maker.jobs_of(Staged(slow=True), Staged(slow=True))
    gone.dropped = True
    first.free.set()
    ripen(maker, other)
    assert not gone.done


def test_an_error_is_that_of_its_row(maker):
    bad, good = maker.jobs_of(Staged(error=GenerationError("too complex")), Staged())
    assert str(bad.error) == "too complex"
    assert good.error is None
    assert good.done


def test_the_masks_of_a_run_have_a_budget(maker):
    spent = Staged()
    spent.mask_seconds = mask_maker.MAX_SECONDS - 0.001
    (job,) = maker.jobs_of(spent)
    assert job.error is None
    spent.mask_seconds = mask_maker.MAX_SECONDS
    (job,) = maker.jobs_of(spent)
    with pytest.raises(GenerationError, match="too costly: its masks have taken 10 s"):
        raise job.error


def test_a_constraint_without_a_grammar_needs_no_thread(maker):
    simple = Staged()
    simple.simple = True
    assert maker.jobs_of(simple)[0].done
    assert simple.thread is threading.current_thread()


def test_a_grammar_that_has_proved_cheap_needs_no_thread_until_it_is_costly_once(maker):
    shared = SharedGrammar()
    for _ in range(PROVEN):
        (job,) = maker.jobs_of(Staged(shared=shared))
        assert job.constraint.thread is not threading.current_thread()
    (job,) = maker.jobs_of(Staged(shared=shared))
    assert job.constraint.thread is threading.current_thread()
    with shared.lock:  # another thread makes one of its masks
        (late,) = maker.jobs_of(Staged(shared=shared))
        assert not late.done
    ripen(maker, late)
    shared.note(2 * COSTLY_S)
    (job,) = maker.jobs_of(Staged(shared=shared))
    assert job.constraint.thread is not threading.current_thread()


def test_closing_ends_the_threads_and_a_later_mask_is_an_error():
    before = set(threading.enumerate())
    made, slow = MaskMaker(), held(slow=True)
    made.make([job_of(slow), job_of(Staged())])
    assert len(set(threading.enumerate()) - before) == 2
    slow.free.set()
    made.close()
    made.close()
    assert set(threading.enumerate()) <= before
    job = job_of(Staged(slow=True))
    made.make([job])
    assert "closed" in str(job.error)
