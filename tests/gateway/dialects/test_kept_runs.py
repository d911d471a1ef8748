import pytest

from gateway.dialects.kept_runs import KeptRun, KeptRuns, Reading
from gateway.protocol.frames import Cancel, Resume

FIRST, SECOND = object(), object()


def kept(name="c", client="a", reader=FIRST, **more):
    return KeptRun(client, name, f"g-{name}", f"ticket of {name}", reader, **more)


def test_a_client_finds_its_own_by_name():
    runs = KeptRuns()
    run = kept()
    runs.add(run)
    assert runs.find("a", "c") is run
    assert runs.find("b", "c") is None
    later = kept()
    runs.add(later)
    runs.forget(run)  # which is no longer kept
    assert runs.find("a", "c") is later
    assert (len(runs), runs.held_bytes) == (1, later.size)
    runs.forget(later)
    assert (len(runs), runs.held_bytes) == (0, 0)


@pytest.mark.parametrize("bound", [{"most": 3}, {"most_bytes": 3000}])
def test_the_client_that_keeps_the_most_loses_its_oldest(bound):
    runs = KeptRuns(**bound)
    for name in "xyz":
        runs.add(kept(name, size=1000))
    runs.add(kept("c", client="b", size=1000))
    assert runs.find("a", "x") is None
    assert runs.find("b", "c") is not None
    assert len(runs) == 3


def test_the_newest_to_come_reads_first_and_the_one_before_follows():
    runs, run = KeptRuns(), kept()
    runs.add(run)
    old = Reading(run.id, run)
    old.read(4)
    new, request = runs.begin(SECOND, "a", "c")
    assert request == Resume(id=run.id, ticket=run.ticket, after=-1)
    assert (old.must_move(FIRST), new.must_move(SECOND)) == (True, False)
    (request,) = old.move(FIRST)
    assert request == Resume(id=old.id, ticket=run.ticket, after=4, follow=True)
    assert old.id != run.id
    assert not old.must_move(FIRST)


def test_who_reads_first_already_follows_itself():
    runs, run = KeptRuns(), kept()
    runs.add(run)
    reading, request = runs.begin(FIRST, "a", "c")
    assert (reading.follows, request.follow, request.id) == (True, True, reading.id)
    assert run.reader is FIRST
    assert runs.begin(FIRST, "a", "other") is None


def test_a_follower_takes_the_place_of_a_first_reader_that_has_ended():
    runs, run = KeptRuns(), kept()
    follower = Reading("f", run, follows=True)
    follower.read(7)
    assert run.newest == 0  # which is what its first reader was given
    runs.leave(SECOND, [run])
    assert not follower.must_move(SECOND)
    runs.leave(FIRST, [run])
    assert follower.must_move(SECOND)
    requests = follower.move(SECOND)
    assert requests == [Resume(id=run.id, ticket=run.ticket, after=7), Cancel(id="f")]
    assert (run.reader, follower.follows) == (SECOND, False)


def test_what_is_refused_leaves_the_first_reader_as_it_was():
    runs, run = KeptRuns(), kept()
    runs.add(run)
    reading, _ = runs.begin(SECOND, "a", "c")
    reading.refused(SECOND)
    assert run.reader is FIRST


def test_a_follower_can_stop_the_model():
    run = kept(newest=9)
    assert Reading(run.id, run).stop(FIRST) == [Cancel(id=run.id)]
    stop = Reading("f", run, follows=True).stop(SECOND)
    resume = Resume(id=run.id, ticket=run.ticket, after=9)
    assert stop == [Cancel(id="f"), resume, Cancel(id=run.id)]
    assert run.ended
    assert Reading("g").stop(FIRST) == [Cancel(id="g")]
