"""A generation that is counted by whoever watches the replicas."""

import asyncio

from provider.replicas.lease import BEGIN_S, Lease
from tests.support.servers import eventually


def leased(told):
    def begin():
        told.append("begins")
        return lambda: told.append("ends")

    return Lease(begin)


async def test_a_generation_is_counted_once_it_has_run_for_a_while():
    told = []
    lease = leased(told)
    assert told == []
    await eventually(lambda: told == ["begins"])
    lease.end()
    lease.end()
    assert told == ["begins", "ends"]


async def test_a_short_one_is_not_counted():
    told = []
    lease = leased(told)
    lease.end()
    await asyncio.sleep(2 * BEGIN_S)
    assert told == []


async def test_one_that_could_not_be_counted_runs_and_ends(caplog):
    def refuse():
        raise RuntimeError("Serve is stopping")

    lease = Lease(refuse)
    await eventually(lambda: caplog.records)
    assert "a generation is not counted" in caplog.text
    assert "Serve is stopping" in caplog.text
    lease.end()


async def test_one_whose_end_can_not_be_told_ends(caplog):
    begun = asyncio.Event()

    def refuse():
        raise RuntimeError("Serve is stopping")

    def begin():
        begun.set()
        return refuse

    lease = Lease(begin)
    await begun.wait()
    lease.end()
    lease.end()
    assert caplog.text.count("may still be counted") == 1
