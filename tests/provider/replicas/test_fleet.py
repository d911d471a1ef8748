"""All replicas together: their models, places and states."""

import asyncio

import pytest

from gateway.protocol.frames import Generate
from provider.interface import ModelInfo
from provider.replicas.fleet import Fleet
from provider.scripted import ScriptedProvider
from tests.support.replicas import replicated
from tests.support.servers import eventually, running


class Named(ScriptedProvider):
    """Serves models of these names."""

    def __init__(self, *names):
        super().__init__(tokens_per_second=None)
        self.names = names

    def models(self):
        return [ModelInfo(name, 100, loaded=name != "cold") for name in self.names]


async def test_the_models_of_all_are_served_and_asked_of_those_that_have_them():
    async with replicated(Named("a", "b"), Named("a", "c"), Named("d")) as replicas:
        fleet = replicas.fleet
        assert {model.id for model in fleet.models()} == {"a", "b", "c", "d"}
        default = fleet.models()[0].id

        def at(model):
            asked = [Generate(id="x", prompt=f"{n}", model=model) for n in range(9)]
            places = [fleet.place(one) for one in asked]
            return {replicas.at(place.link.replica) for place in places}

        assert (at("b"), at("c"), at("d"), at("a")) == ({0}, {1}, {2}, {0, 1})
        assert at(None) == ({2} if default == "d" else {0, 1})


async def test_a_place_counts_until_it_is_left():
    async with replicated(Named("a"), max_generations=2) as replicas:
        fleet, frame = replicas.fleet, Generate(id="x", prompt="p", n=2)
        place = fleet.place(frame)
        assert fleet.place(frame) is None
        assert list(fleet.statistics().replica_answers.values()) == [2]
        place.leave()
        assert fleet.place(frame) is not None
        assert fleet.statistics().generations_placed == 2


async def test_a_lost_replica_takes_nothing_and_another_one_is_not_touched():
    async with replicated(Named("a"), Named("a")) as replicas:
        fleet = replicas.fleet
        await replicas.kill(0)
        await eventually(lambda: fleet.ready == 1)
        places = [fleet.place(Generate(id="x", prompt=f"{n}")) for n in range(3)]
        assert {replicas.at(place.link.replica) for place in places} == {1}
        await replicas.kill(1)
        await eventually(lambda: fleet.ready == 0)
        assert fleet.place(Generate(id="x", prompt="p")) is None
        assert all(replica.name in fleet.why_not() for replica in fleet.replicas)
        assert sum(fleet.statistics().replica_connections_lost.values()) == 2


async def test_waiting_for_a_replica_ends_with_the_first():
    fleet = Fleet(["127.0.0.1:1"])
    fleet.start()
    try:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await fleet.wait_ready()
    finally:
        await fleet.close()
    assert fleet.closed


async def test_replicas_that_go_end_what_they_have_and_those_that_come_get_the_rest():
    told = []
    frame = Generate(id="x", prompt="p")
    async with running(Named("a")) as first, running(Named("a")) as second:
        fleet = Fleet([])
        fleet.lease = lambda name: told.append(name) or (lambda: told.append(f"{name} ends"))
        try:
            fleet.keep({"one": first.url})
            await eventually(lambda: fleet.ready == 1)
            place = fleet.place(frame)
            fleet.keep({"two": second.url})
            await eventually(lambda: fleet.ready == 1)
            assert fleet.place(frame).link.replica is not place.link.replica
            assert place.link.client.state == "open"
            place.leave()
            await eventually(lambda: len(fleet.replicas) == 1)
            assert place.link.client.state == "closed"
            assert told == ["one", "two", "one ends"]
        finally:
            await fleet.close()
