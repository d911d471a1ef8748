"""Connections to other gateways beside a client's own."""

import asyncio

import pytest

from gateway.client.elsewhere import Elsewhere
from gateway.client.errors import ConnectionLostError


class Noting:
    """A client that notes what is asked of it, and connects unless it is told what to raise.

    With a `gate` it connects once that is open.
    """

    def __init__(self, error=None, gate=None):
        self.error, self.state, self.told = error, "closed", []
        self.gate, self.entered = gate, asyncio.Event()

    async def __aenter__(self):
        self.entered.set()
        await asyncio.sleep(0)
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        self.state = "open"

    async def __aexit__(self, *details):
        self.state = "closed"
        self.told.append("closed")

    async def start(self, run):
        self.told.append(f"start {run}")

    async def cancel(self, run):
        self.told.append(f"cancel {run}")

    async def leave(self, run):
        self.told.append(f"leave {run}")

    async def acknowledge(self, run, frame):
        self.told.append(f"{run} has read {frame}")


def elsewhere(*clients):
    left = list(clients)
    return Elsewhere(lambda: left.pop(0))


async def test_runs_share_a_connection_which_is_made_for_the_first():
    client = Noting()
    made = elsewhere(client)
    await made.cancel("a")
    await made.leave("a")
    await made.acknowledge("a", 0)
    await asyncio.gather(made.start("a"), made.start("b"))
    await made.acknowledge("a", 1)
    await made.cancel("a")
    await made.leave("b")
    await made.close()
    await made.close()
    assert client.told == ["start a", "start b", "a has read 1", "cancel a", "leave b", "closed"]


async def test_a_connection_that_has_ended_for_good_is_made_anew():
    first, second = Noting(), Noting()
    made = elsewhere(first, second)
    await made.start("a")
    first.state = "closed"
    await made.start("b")
    assert (first.told, second.told) == (["start a", "closed"], ["start b"])


async def test_a_gateway_that_cannot_be_reached_is_a_lost_connection():
    made = elsewhere(Noting(OSError("no route")), Noting())
    with pytest.raises(ConnectionLostError, match="can't be reached: no route"):
        await made.start("a")
    await made.start("a")


@pytest.mark.parametrize("end", [Elsewhere.cancel, Elsewhere.leave])
async def test_a_run_that_is_ended_while_its_connection_is_made_is_cancelled_once_it_is(end):
    gate = asyncio.Event()
    client = Noting(gate=gate)
    made = elsewhere(client)
    starting = asyncio.gather(made.start("a"), made.start("b"))
    await client.entered.wait()
    await end(made, "a")
    await end(made, "a")
    gate.set()
    await starting
    assert sorted(client.told) == ["cancel a", "start a", "start b"]
    assert client.told.index("start a") < client.told.index("cancel a")


async def test_a_run_that_is_cancelled_while_a_connection_is_made_anew_is_not_told_to_the_old_one():
    gate = asyncio.Event()
    first, second = Noting(), Noting(gate=gate)
    made = elsewhere(first, second)
    await made.start("a")
    first.state = "closed"
    starting = asyncio.create_task(made.start("b"))
    await second.entered.wait()
    await made.cancel("b")
    gate.set()
    await starting
    assert (first.told, second.told) == (["start a", "closed"], ["start b", "cancel b"])


async def test_a_run_that_could_not_be_sent_is_not_cancelled_when_it_is_later():
    gate = asyncio.Event()
    first, second = Noting(OSError("no route"), gate), Noting()
    made = elsewhere(first, second)
    starting = asyncio.create_task(made.start("a"))
    await first.entered.wait()
    await made.cancel("a")
    gate.set()
    with pytest.raises(ConnectionLostError):
        await starting
    await made.start("a")
    assert second.told == ["start a"]


async def test_a_connection_that_is_being_made_at_the_end_is_closed_and_its_run_ends():
    gate = asyncio.Event()
    client = Noting(gate=gate)
    made = elsewhere(client)
    starting = asyncio.create_task(made.start("a"))
    await client.entered.wait()
    await made.close()
    gate.set()
    with pytest.raises(ConnectionLostError, match="closed"):
        await starting
    assert (client.told, client.state) == (["closed"], "closed")
