"""What is accepted, and what the server does when it may open no more sockets."""

import asyncio
import gc
import socket
import sys
from contextlib import AsyncExitStack, ExitStack, suppress
from urllib.parse import urlsplit

import pytest

from gateway.server import accepting
from gateway.server.accepting import Guests, tell_rarely_of_accept
from gateway.server.origins import proxies
from provider.scripted import ScriptedProvider
from tests.support.programs import GATEWAY
from tests.support.servers import TIMEOUT, Command, eventually, get, running

FILES = 300  # that the process of a test may open
FEW_FILES = ["bash", "-c", f'ulimit -n {FILES}; exec "$0" "$@"', sys.executable, *GATEWAY]


def test_one_address_has_half_of_the_sockets_that_others_leave():
    guests, count = Guests(100, proxies("10.0.0.0/8")), 0

    def entered(peer):
        nonlocal count
        before = count
        while count - before < 60 and guests.enter(peer, count) is not None:
            count += 1
        return count - before

    peers = ("1.2.3.4", "::ffff:1.2.3.4", "5.6.7.8", "9.9.9.9")
    assert [entered(peer) for peer in peers] == [50, 0, 25, 12]
    assert entered("10.0.0.1") == 60, "a proxy's are many clients'"
    guests.leave("1.2.3.4")
    assert guests.enter("1.2.3.4", 87) is None, "others have taken them"
    assert guests.enter("1.2.3.4", 40) == "1.2.3.4"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere 127.0.0.1 alone is this machine")
async def test_sockets_that_ask_for_nothing_leave_some_for_other_addresses():
    async with running(ScriptedProvider()) as gateway, AsyncExitStack() as stack:
        kept = []  # a writer that is forgotten closes its connection

        async def connected(address):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", gateway.port, local_addr=(address, 0)
            )
            stack.callback(writer.transport.abort)
            kept.append(writer)
            return reader

        await connected("127.0.0.1")
        guests = gateway._door._guests
        guests._most = 41
        await eventually(lambda: gateway._server.handler_tasks)
        silent = [await connected("127.0.0.2") for _ in range(21)]
        assert (await silent[-1].readline()).startswith(b"HTTP/1.1 503 ")
        assert len(gateway._server.handler_tasks) == 21
        assert (await get(gateway, "/healthz"))[0] == 200
        await stack.aclose()
        await eventually(lambda: not gateway._server.handler_tasks)
        assert not guests._by_address._counts


def answer_to(address, request=b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"):
    with socket.create_connection(address, TIMEOUT) as client:
        client.sendall(request)
        return client.makefile("rb").read()


def test_a_server_out_of_descriptors_says_so_and_goes_on():
    command = Command("--port", "0", "--provider", "scripted", program=FEW_FILES)
    try:
        parts = urlsplit(command.wait_for_address())
        address = (parts.hostname, parts.port)
        with ExitStack() as opened:
            for _ in range(FILES + 50):  # that send nothing
                opened.enter_context(socket.create_connection(address, TIMEOUT))
            for _ in range(20):
                answer = answer_to(address)
                assert answer.startswith(b"HTTP/1.1 503 ")
                assert b"Retry-After: 5\r\n" in answer
        answer = b""
        while not answer.startswith(b"HTTP/1.1 200"):
            answer = answer_to(address)
    finally:
        _, _, said = command.finish(15)
    assert "`max_connections` is cut from 4096 to" in said
    assert said.count("sockets not let in yet, and gets no more") == 1
    assert len(said.splitlines()) < 10


async def test_sockets_that_ask_for_nothing_do_not_hold_up_the_end():
    async with running(ScriptedProvider(), close_timeout_s=1000) as gateway:
        with ExitStack() as opened:
            for _ in range(5):
                address = ("127.0.0.1", gateway.port)
                opened.enter_context(socket.create_connection(address, TIMEOUT))
            await eventually(lambda: len(gateway._server.handler_tasks) == 5)
            async with asyncio.timeout(5):  # half of what a handshake may take
                await gateway.close()


async def test_a_refused_socket_is_closed_when_the_gateway_is():
    async with running(ScriptedProvider()) as gateway:
        gateway._door._most = 0
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        assert (await reader.readline()).startswith(b"HTTP/1.1 503 ")
        (refused,) = gateway._door._guests._refusals
        await gateway.close()
        assert refused._transport.get_extra_info("socket").fileno() == -1
        writer.transport.abort()


async def test_a_socket_that_is_accepted_while_the_gateway_closes_is_closed_too():
    for turns in range(5):  # of the event loop, between its arrival and the end
        async with running(ScriptedProvider()) as gateway:
            with socket.create_connection(("127.0.0.1", gateway.port), TIMEOUT) as client:
                client.setblocking(False)
                for _ in range(turns):
                    await asyncio.sleep(0)
                await gateway.close()
                with suppress(ConnectionResetError):
                    assert client.recv(1) == b""
    gc.collect()  # a transport that is left open fails the test


async def test_failing_to_accept_is_told_once(caplog):
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    tell_rarely_of_accept(loop)
    try:
        for _ in range(100):
            loop.call_exception_handler(
                {"message": accepting.ACCEPT_FAILED, "exception": OSError(24, "Too many")}
            )
        assert [one.message for one in caplog.records] == [
            "cannot accept connections: [Errno 24] Too many"
        ]
        loop.call_exception_handler({"message": "another fault"})
        assert caplog.records[-1].message == "another fault"
    finally:
        loop.set_exception_handler(before)
