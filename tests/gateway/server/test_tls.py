"""TLS: certificates, and sockets that don't begin it or take their time."""

import asyncio
import json
import ssl
import sys
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trustme
from websockets.asyncio.client import connect

from gateway.configuration.settings import Settings
from gateway.protocol.frames import Cancel, Generate
from gateway.server.descriptors import Sockets
from gateway.server.server import Gateway
from gateway.server.tls import _Turns
from provider.scripted import Pause, Say, ScriptedProvider
from tests.support.servers import Wire, eventually, running, settings, stream_url

AUTHORITY = trustme.CA()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    made = {"tls_cert": str(folder / "cert.pem"), "tls_key": str(folder / "key.pem")}
    write(AUTHORITY, made)
    return made


def write(authority, files):
    issued = authority.issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(files["tls_cert"])
    issued.private_key_pem.write_to_path(files["tls_key"])


async def greeted(gateway, authority=AUTHORITY):
    """Return the type of the first frame that a client gets who trusts an authority."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    url = stream_url(gateway).replace("ws:", "wss:")
    async with connect(url, ssl=context) as client:
        return (await Wire(client).receive())["type"]


@asynccontextmanager
async def silent(gateway, count, address="127.0.0.1"):
    """Open sockets that say nothing."""
    async with AsyncExitStack() as stack:
        readers, kept = [], []  # a writer that is forgotten closes its connection
        for _ in range(count):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", gateway.port, local_addr=(address, 0)
            )
            stack.callback(writer.transport.abort)
            readers.append(reader)
            kept.append(writer)
        yield readers


def handshakes(gateway):
    return len(gateway._door._guests.handshakes)


def guests(gateway):
    return dict(gateway._door._guests._by_address._counts)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere 127.0.0.1 alone is this machine")
async def test_sockets_that_never_begin_tls_leave_some_for_other_addresses(files):
    gateway = Gateway(ScriptedProvider(), settings(**files))
    gateway._sockets = Sockets(all=40, connections=20)
    async with gateway:
        async with silent(gateway, 21, "127.0.0.2") as readers:
            assert await readers[-1].read() == b""
            assert handshakes(gateway) == 20
            assert await greeted(gateway) == "ready"
        await eventually(lambda: not (handshakes(gateway) or guests(gateway)))


async def test_a_socket_that_never_begins_tls_is_closed_in_time(files):
    async with running(ScriptedProvider(), **files) as gateway:
        gateway._tls.seconds = 0.01
        async with silent(gateway, 1) as [reader]:
            assert await reader.read() == b""
        await eventually(lambda: not (handshakes(gateway) or guests(gateway)))


async def test_sockets_that_never_begin_tls_do_not_hold_up_the_end(files):
    async with running(ScriptedProvider(), close_timeout_s=1000, **files) as gateway:
        async with silent(gateway, 5) as readers:
            await eventually(lambda: handshakes(gateway) == 5)
            await gateway.close()
            assert [await reader.read() for reader in readers] == [b""] * 5


async def test_what_is_no_tls_is_closed_and_not_counted_any_more(files, caplog):
    async with running(ScriptedProvider(), **files) as gateway:
        for nonsense in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x01x", b""):
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            writer.write(nonsense)
            writer.write_eof()
            while await reader.read(100):
                pass  # an alert
            writer.close()
        await eventually(lambda: not (handshakes(gateway) or guests(gateway)))
        assert await greeted(gateway) == "ready"
    assert not caplog.records


async def test_handshakes_that_begin_at_once_are_all_done(files):
    async with running(ScriptedProvider(), **files) as gateway:
        assert await asyncio.gather(*(greeted(gateway) for _ in range(8))) == ["ready"] * 8
        await eventually(lambda: not (handshakes(gateway) or guests(gateway)))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere 127.0.0.1 alone is this machine")
async def test_handshakes_of_an_address_beyond_its_share_are_made_later(files):
    provider = ScriptedProvider(script=[Say("x"), Pause(1000)], tokens_per_second=None)
    async with running(provider, client_loop_share=0.01, **files) as gateway:
        share = gateway._generations.loop_share
        context = ssl.create_default_context()
        AUTHORITY.configure_trust(context)
        url = stream_url(gateway).replace("ws:", "wss:")
        async with connect(url, ssl=context, local_addr=("127.0.0.2", 0)) as client:
            wire = Wire(client)
            await wire.receive()
            await wire.send(Generate(id="a", prompt="x"))
            await wire.until("chunk")
            share.spend("guest 127.0.0.1", 100.0, asyncio.get_running_loop().time())
            made = [asyncio.create_task(greeted(gateway)) for _ in range(2)]
            await eventually(lambda: [len(line.rests) for line in share._lines.values()] == [2])
            first = next(iter(gateway._door._guests.handshakes.values()))
            first.abort()  # which is how the server notes that a paused socket is gone
            await eventually(lambda: handshakes(gateway) == 1)
            assert len(share._lines["guest 127.0.0.1"].rests) == 1
            await wire.send(Cancel(id="a"))
            await wire.until("done")
            ends = await asyncio.gather(*made, return_exceptions=True)
            assert sorted(map(repr, ends)) == ["'ready'", "ConnectionResetError()"]
        assert not share._lines


async def test_records_that_come_together_are_all_read(files):
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    async with running(ScriptedProvider(), **files) as gateway:
        url = stream_url(gateway).replace("ws:", "wss:")
        async with connect(url, ssl=context, compression=None) as client:
            wire = Wire(client)
            await wire.receive()
            for nonce in range(20):
                client.protocol.send_text(json.dumps({"type": "ping", "nonce": nonce}).encode())
            client.transport.writelines(client.protocol.data_to_send())
            assert [(await wire.receive())["nonce"] for _ in range(20)] == list(range(20))


async def test_one_step_is_taken_in_a_turn_and_addresses_take_turns():
    turns, order = _Turns(), []
    for step in ("a1", "a2", "a3", "b1"):
        turns.add(step[0], lambda step=step: order.append(step))
    after_each = []
    for _ in range(4):
        await asyncio.sleep(0)
        after_each.append(" ".join(order))
    assert after_each == ["a1", "a1 b1", "a1 b1 a2", "a1 b1 a2 a3"]
    turns.add("a", lambda: order.append("again"))
    await asyncio.sleep(0)
    assert order[-1] == "again"


async def test_a_new_certificate_is_read_without_a_restart(tmp_path):
    authority, later = trustme.CA(), trustme.CA()
    files = {"tls_cert": str(tmp_path / "cert.pem"), "tls_key": str(tmp_path / "key.pem")}
    write(authority, files)
    async with running(ScriptedProvider(), **files) as gateway:
        assert gateway.url.startswith("https://")
        assert await greeted(gateway, authority) == "ready"
        write(later, files)
        gateway.renew_certificate()
        assert await greeted(gateway, later) == "ready"
        with pytest.raises(ssl.SSLError):
            await greeted(gateway, authority)


def test_a_certificate_that_cannot_be_read_is_an_error_before_listening(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        Gateway(ScriptedProvider(), Settings(tls_cert=str(tmp_path / "none.pem")))
    with pytest.raises(ValueError, match="`tls_key` without `tls_cert`"):
        Gateway(ScriptedProvider(), Settings(tls_key="key.pem"))
