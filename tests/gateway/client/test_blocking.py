import asyncio
import signal
import sys
import threading

import pytest

from gateway.client import UnauthorizedError
from gateway.client.blocking import LoopThread, SyncClient
from gateway.protocol.frames import Done
from gateway.server.tokens import Token, Tokens
from provider.scripted import Call, Pause, Say, ScriptedProvider
from tests.support.servers import eventually, running, stream_url
from tests.support.timeouts import TIMEOUT


async def doubled(number):
    await asyncio.sleep(0)
    return 2 * number


def test_work_is_done_on_the_loops_thread_and_its_value_returned():
    with LoopThread() as loop:
        assert loop.wait(doubled(3)) == 6

        async def where():
            return threading.current_thread().name

        assert loop.wait(where()) == "gateway-client"
    assert loop.loop.is_closed()


def test_what_the_work_raises_is_raised_here():
    async def fail():
        raise LookupError("here")

    with LoopThread() as loop, pytest.raises(LookupError, match="here"):
        loop.wait(fail())


def test_the_thread_ends_with_its_block():
    before = set(threading.enumerate())
    with LoopThread():
        (own,) = set(threading.enumerate()) - before
    assert not own.is_alive()


class InterruptedOnce:
    """A loop to whose first call from another thread Ctrl-C comes, before or after its effect."""

    def __init__(self, loop, when):
        self._loop = loop
        self._when = when

    def call_soon_threadsafe(self, callback, *arguments):
        when, self._when = self._when, None
        if when == "before":
            raise KeyboardInterrupt
        self._loop.call_soon_threadsafe(callback, *arguments)
        if when == "after":
            raise KeyboardInterrupt

    def __getattr__(self, name):
        return getattr(self._loop, name)


@pytest.mark.parametrize("when", ["before", "after"])
def test_ctrl_c_counts_although_nothing_is_waited_for_yet(when):
    async def stopped(ended, begun):
        begun.append(1)
        return await ended.wait()

    ended, begun = asyncio.Event(), []
    with LoopThread() as loop:
        loop.loop = InterruptedOnce(loop.loop, when)
        assert loop.wait(stopped(ended, begun), ended.set)
        assert begun == [1]


@pytest.mark.parametrize("when", ["before", "after"])
def test_ctrl_c_cancels_work_that_is_not_waited_for_yet(when):
    began, ended = [], []

    async def work():
        began.append(1)
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(1)

    with LoopThread() as loop:
        loop.loop = InterruptedOnce(loop.loop, when)
        with pytest.raises(KeyboardInterrupt):
            loop.wait(work())
        assert loop.wait(doubled(1)) == 2
        assert began == ended


# In a process of its own, for Ctrl-C ends the one that runs the tests.
CTRL_C = """
import asyncio, os, signal
from gateway.client.blocking import LoopThread

signal.signal(signal.SIGINT, signal.default_int_handler)

async def interrupted(ended):
    os.kill(os.getpid(), signal.SIGINT)
    try:
        await ended.wait()
    except asyncio.CancelledError:
        ended.set()
        raise
    return "stopped"

async def waited(ended):
    return await ended.wait()

said = set()
with LoopThread() as loop:
    for _ in range(20):
        ended = asyncio.Event()
"""
CANCELS = """
        try:
            loop.wait(interrupted(ended))
        except KeyboardInterrupt:
            said.add(("interrupted, ended:", loop.wait(waited(ended))))
print(said)
"""
ANSWERED = """
        said.add(loop.wait(interrupted(ended), ended.set))
print(said)
"""


@pytest.mark.parametrize(
    ("work", "said"),
    [(CANCELS, b"{('interrupted, ended:', True)}\n"), (ANSWERED, b"{'stopped'}\n")],
)
async def test_ctrl_c_cancels_the_work_unless_it_is_answered(work, said):
    script = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CTRL_C + work, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await asyncio.wait_for(script.communicate(), TIMEOUT)
    assert (out, script.returncode) == (said, 0)


async def test_the_client_without_asyncio():
    provider = ScriptedProvider(
        script=lambda request: [Say(request.prompt), *([Pause(3600)] * (request.prompt == "stop"))],
        tokens_per_second=None,
    )

    def script(url):
        with SyncClient(url) as client:
            assert client.ready.models == ["scripted"]
            assert [chunk.text for chunk in client.generate(prompt="a b")] == ["a ", "b"]
            for _ in client.generate(prompt="stop"):
                break
            run = client.answer(prompt="all of it")
            assert isinstance(run.done, Done)
            return run.text

    async with running(provider) as gateway:
        assert await asyncio.to_thread(script, stream_url(gateway)) == "all of it"
        await eventually(lambda: not provider.live)
        with pytest.raises(UnauthorizedError):
            gateway.tokens = Tokens([Token("alice", "0" * 64)])
            await asyncio.to_thread(script, stream_url(gateway))


class InterruptedLate:
    """A loop for whose first work Ctrl-C comes when it is done, and nobody has its value yet."""

    def __init__(self, loop):
        self._loop = loop
        self._came = False

    def call_soon_threadsafe(self, callback, *arguments):
        self._loop.call_soon_threadsafe(callback, *arguments)
        if not self._came:
            self._came = True
            callback.__self__.future.result(TIMEOUT)
            raise KeyboardInterrupt

    def __getattr__(self, name):
        return getattr(self._loop, name)


async def test_ctrl_c_ends_a_generation_that_has_just_been_sent():
    provider = ScriptedProvider(script=[Say("a"), Pause(3600)], tokens_per_second=None)

    def script(url):
        with SyncClient(url) as client:
            client._thread.loop = InterruptedLate(client._thread.loop)
            with pytest.raises(KeyboardInterrupt):
                list(client.generate(prompt="hi"))

    async with running(provider) as gateway:
        await asyncio.to_thread(script, gateway.url)
        await eventually(lambda: not provider.live)
        assert len(provider.requests) == 1


def test_the_thread_ends_even_if_leaving_is_interrupted():
    class Connection:
        async def __aenter__(self):
            return self

        async def __aexit__(self, *details):
            raise LookupError("here")

    before = set(threading.enumerate())
    client = SyncClient("http://127.0.0.1:9/")
    client._connection = Connection()
    with pytest.raises(LookupError), client:
        pass
    assert set(threading.enumerate()) == before


async def test_the_client_without_asyncio_waits_for_a_gateway_that_starts_later(tmp_path):
    waiting, file = threading.Event(), str(tmp_path / "socket")

    def script():
        options = {"wait_s": TIMEOUT, "on_state": lambda *state: waiting.set()}
        with SyncClient(f"unix:{file}", **options) as client:
            return client.answer(prompt="hi").text

    answer = asyncio.create_task(asyncio.to_thread(script))
    assert await asyncio.to_thread(waiting.wait, TIMEOUT)
    provider = ScriptedProvider(script=[Say("a b")], tokens_per_second=None)
    async with running(provider, unix=file):
        assert await answer == "a b"


async def test_parts_of_tool_calls_come_among_the_frames():
    provider = ScriptedProvider(script=[Say("Now."), Call("add", {"a": 1})], tokens_per_second=None)

    def script(url):
        with SyncClient(url) as client:
            return list(client.frames(prompt="hi"))

    async with running(provider) as gateway:
        said, *parts = await asyncio.to_thread(script, gateway.url)
    assert said.text == "Now."
    assert parts[0].name == "add"
    assert parts[-1].complete


INTERRUPTED = """
import sys
from gateway.client.asynchronous import WINDOW
from gateway.client.blocking import SyncClient

with SyncClient(sys.argv[1]) as client:
    try:
        for chunk in client.generate(prompt="stop"):
            print(chunk.text, flush=True)
    except KeyboardInterrupt:
        print(client.answer(prompt="again").text)
"""


async def test_ctrl_c_ends_a_generation_of_the_client_without_asyncio():
    provider = ScriptedProvider(
        script=lambda request: [Say(request.prompt), *([Pause(3600)] * (request.prompt == "stop"))],
        tokens_per_second=None,
    )
    async with running(provider) as gateway:
        script = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", INTERRUPTED, stream_url(gateway)),
            stdout=asyncio.subprocess.PIPE,
        )
        assert await script.stdout.readline() == b"stop\n"
        script.send_signal(signal.SIGINT)
        assert await script.stdout.read() == b"again\n"
        assert await script.wait() == 0
        assert not provider.live
