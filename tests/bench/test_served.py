"""The benchmarks' gateway says what it holds."""

from websockets.asyncio.client import connect

from tests.bench.served import served


async def test_a_served_gateway_says_what_it_holds():
    async with served() as one:
        async with connect(f"ws://127.0.0.1:{one.port}/v1/stream") as socket:
            await socket.recv()
            await socket.send('{"type":"generate","id":"a","prompt":"1000000","resumable":true}')
            assert "ticket" in await socket.recv()
            busy = await one.stats()
    assert busy["rss_kib"] > 0
    assert {name: busy[name] for name in ("connections", "generations", "tickets")} == {
        "connections": 1,
        "generations": 1,
        "tickets": 1,
    }
