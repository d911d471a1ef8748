"""All replicas together: their models, places and states."""

import asyncio

import pytest

from gateway.protocol.frames import Generate
from provider.interface import ModelInfo
from provider.replicas.fleet import Fleet
from provider.replicas.prefixes import prefixes_of
from provider.replicas.replica import PLACES
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


async def test_the_prefixes_of_a_conversation_may_be_given():
    async with replicated(Named("a")) as replicas:
        fleet, frame = replicas.fleet, Generate(id="x", prompt="p")
        fleet.place(frame)
        fleet.place(Generate(id="x", prompt="another"), prefixes_of(frame))
        assert fleet.statistics().conversations_known == 1


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


async def test_requests_without_a_model_follow_replicas_that_come_back_with_another():
    frame, asked = Generate(id="x", prompt="p"), Generate(id="x", prompt="p", model="a")
    async with replicated(Named("a"), Named("a")) as replicas, running(Named("b")) as other:
        fleet = replicas.fleet
        for at in (0, 1):
            replicas.proxies[at].port = other.port
            replicas.proxies[at].cut()
            await eventually(lambda at=at: fleet.replicas[at].models[0].id == "b")
            await eventually(lambda: fleet.ready == 2)
            # As long as one has it, what was the default stays it.
            expected = {0: {1}, 1: {0, 1}}[at]
            places = [fleet.place(Generate(id="x", prompt=f"{n}")) for n in range(4)]
            assert {replicas.at(place.link.replica) for place in places} == expected
        assert [model.id for model in fleet.models()] == ["b"]
        # A replica says that there is no such model any more.
        assert fleet.place(asked) is not None
        assert fleet.place(frame) is not None


async def test_a_model_whose_replicas_are_lost_is_not_another_model():
    async with replicated(Named("a"), Named("b")) as replicas:
        fleet = replicas.fleet
        names = [replica.models[0].id for replica in fleet.replicas]
        await replicas.kill(names.index("a"))
        await eventually(lambda: fleet.ready == 1)
        assert fleet.place(Generate(id="x", prompt="p", model="a")) is None
        assert fleet.place(Generate(id="x", prompt="p", model="b")) is not None
        default = fleet.models()[0].id
        assert (fleet.place(Generate(id="x", prompt="p")) is None) == (default == "a")
        gone = fleet.replicas[names.index("a")].name
        assert f"no replica with the model `a` is ready ({gone}: " in fleet.why_none("a")
        assert fleet.why_none("b") == "all replicas are busy"
        await replicas.kill(names.index("b"))
        await eventually(lambda: fleet.ready == 0)
        assert fleet.why_none("b") == fleet.why_not()


class Places(Named):
    """Says how many answers it makes at once."""

    def __init__(self, places):
        super().__init__("a")
        self._places = places

    def places(self):
        return self._places


async def test_a_replica_gets_generations_by_the_places_that_it_has():
    async with replicated(Places(2), Places(8), Places(None)) as replicas:
        fleet = replicas.fleet
        assert [replica.link.places for replica in fleet.replicas] == [2, 8, PLACES]
        assert fleet.places == 10 + PLACES
        for number in range(10 + PLACES):
            assert fleet.place(Generate(id="x", prompt=f"{number}")) is not None
        answers = fleet.statistics().replica_answers
        assert [answers[replica.name] for replica in fleet.replicas] == [2, 8, PLACES]


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
            await eventually(lambda: told == ["one"])
            fleet.keep({"two": second.url})
            await eventually(lambda: fleet.ready == 1)
            assert fleet.place(frame).link.replica is not place.link.replica
            await eventually(lambda: told == ["one", "two"])
            assert place.link.client.state == "open"
            place.leave()
            await eventually(lambda: len(fleet.replicas) == 1)
            assert place.link.client.state == "closed"
            assert told == ["one", "two", "one ends"]
        finally:
            await fleet.close()


async def test_a_fleet_that_is_closed_connects_to_nobody():
    """Serve may tell of replicas until it has ended, which is later."""
    fleet = Fleet([])
    await fleet.close()
    fleet.keep({"one": "http://127.0.0.1:9/"})
    assert fleet.replicas == []
