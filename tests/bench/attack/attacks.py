"""What an attacker does, each in a process of its own: `python -m tests.bench.attack.attacks`.

Each attack is bounded in number and time, says what it was told, and goes on where it is thrown
out, as an attacker would. It prints a line when it is ready, begins when it gets one, and ends with
a line of JSON: how often it saw which answer.
"""

import asyncio
import base64
import dataclasses
import gc
import itertools
import json
import os
import random
import resource
import secrets
import socket
import struct
import sys
import time
from collections import Counter
from contextlib import suppress

import msgspec

from gateway.protocol.frames import JSON_PROTOCOL, MSGPACK_PROTOCOL
from tests.bench.attack.hostile import (
    BINARY,
    CAPPED,
    GONE,
    MALLORY,
    PING,
    STRANGER,
    Socket,
    Target,
    deflated,
    framed,
    generate,
    get,
)

MIB = 1 << 20
ATTACKS = {}
FILES = 4096
NOT_AT_RANDOM = {
    "anything",
    "plain_rows",
    "left_answers",  # which go on for a minute, as many as a client may have, and slow all
}


def attack(prepare):
    """Register an attack: `prepare(target)` makes what is sent, and returns what sends it."""
    ATTACKS[prepare.__name__] = prepare
    return prepare


def again(seconds=0.1):
    """Wait a little, so that an attacker who is thrown out at once doesn't only connect."""
    return asyncio.sleep(seconds)


def many(one, count):
    """Return what makes an attack `count` times at once; `one` makes it once."""

    async def run(told):
        await asyncio.gather(*(one(told) for _ in range(count)))

    return run


# The event loop.


def _maps(size, protocol):
    """Return a `generate` of so many bytes whose messages are empty maps."""
    if protocol == MSGPACK_PROTOCOL:
        head = b"\x94\x02\xa1a\xc0\xdd"  # [2, "a", nil, [… so many
        count = size - len(head) - 4
        return framed(head + struct.pack(">I", count) + b"\x80" * count, BINARY)
    head, tail = b'{"type":"generate","id":"a","messages":[', b"{}]}"
    return framed(head + b"{}," * ((size - len(head) - len(tail)) // 3) + tail)


async def _frames(target, who, protocol, frames, told):
    """Send frames on one connection, and wait for an answer to each."""
    deadline = target.deadline()
    try:
        socket = await Socket.open(target, who, protocol=protocol)
        for frame in frames:
            await socket.send(frame)
        async with asyncio.timeout_at(deadline):
            for _ in frames:
                told[socket.kind_of(*await socket.receive())] += 1
    except GONE as error:
        told[type(error).__name__] += 1


def _maps_of(who, protocol, size, count):
    def prepare(target):
        frame = _maps(size, protocol)

        async def run(told):
            await _frames(target, who, protocol, [frame] * count, told)

        return run

    return prepare


ATTACKS |= {
    "maps_before_a_token": _maps_of(STRANGER, MSGPACK_PROTOCOL, 8 * MIB - 64, 1),
    "json_maps_before_a_token": _maps_of(STRANGER, JSON_PROTOCOL, 8 * MIB - 64, 1),
    "maps": _maps_of(MALLORY, MSGPACK_PROTOCOL, 7 * MIB, 4),
    "json_maps": _maps_of(MALLORY, JSON_PROTOCOL, 7 * MIB, 4),
}


@attack
def escapes(target):
    """Two prompts of 7 MiB that are nothing but escapes of line feeds."""
    frame = generate(prompt="\n" * (7 * MIB // 2))

    async def run(told):
        await _frames(target, MALLORY, JSON_PROTOCOL, [frame] * 2, told)

    return run


LISTS = "[" + "[]," * (7 * MIB // 3) + "0]"  # in JSON, 230 MB of memory when they are built


@attack
def values_in_strings(target):
    """Seven MiB in one string each: a call's empty lists in AG-UI, a file's escapes in the chat."""
    call = {"id": "c", "function": {"name": "f", "arguments": LISTS}}
    asked = [{"role": "user", "content": "x"}, {"role": "assistant", "toolCalls": [call]}]
    run_agent = {"threadId": "t", "runId": "r", "messages": asked}
    url = "data:text/plain," + "%41" * (7 * MIB // 3)
    part = {"type": "file", "mediaType": "text/plain", "url": url}
    turn = {"id": "u", "role": "user", "parts": [part]}
    send = {"type": "send", "requestId": "r", "id": "c", "messages": [turn]}
    sent = [
        ("/v1/agui", "ag-ui.v1", framed(msgspec.json.encode(run_agent))),
        ("/v1/chat", "ai-sdk.v1", framed(msgspec.json.encode(send))),
    ]

    async def run(told):
        deadline = target.deadline()
        for path, protocol, frame in sent:
            try:
                socket = await Socket.open(target, protocol=protocol, path=path)
                await socket.send(frame)
                async with asyncio.timeout_at(deadline):
                    told[socket.kind_of(*await socket.receive())] += 1
                socket.abort()
            except GONE as error:
                told[type(error).__name__] += 1

    return run


def _flood(who, connections=4):
    def prepare(target):
        burst = framed(bytes(125), PING) * 500

        async def one(told):
            deadline = target.deadline()
            while time.monotonic() < deadline:
                try:
                    socket = await Socket.open(target, who)
                except GONE:
                    told["not connected"] += 1
                    await again()
                    continue
                reader = asyncio.create_task(socket.ignore(deadline))
                try:
                    async with asyncio.timeout_at(deadline):
                        while not reader.done():
                            await socket.send(burst)
                            told["pings"] += 500
                            await asyncio.sleep(0)  # so that the reader sees the end
                except GONE:
                    told["thrown out"] += time.monotonic() < deadline
                reader.cancel()
                socket.abort()
                await again()

        return many(one, connections)

    return prepare


ATTACKS |= {"pings_before_a_token": _flood(STRANGER), "pings": _flood(MALLORY)}


@attack
def pings_of_many(target):
    """As many `ping`s as each of a hundred connections may send."""
    burst = framed(b'{"type":"ping","nonce":"n"}') * 500
    pong = len(framed(b'{"type":"pong","nonce":"n"}')) - 4  # bytes, without a mask

    async def one(told):
        deadline = target.deadline()
        try:
            socket = await Socket.open(target)
            reader = asyncio.create_task(socket.ignore(deadline))
            with suppress(TimeoutError):
                async with asyncio.timeout_at(deadline):
                    while not reader.done():
                        await socket.send(burst)
                        await asyncio.sleep(0.5)  # a thousand a second
            told["thrown out"] += time.monotonic() < deadline
            told["answered"] += await reader // pong
            socket.abort()
        except GONE as error:
            told[type(error).__name__] += 1

    return many(one, 100)


STRANGE_ADDRESS = "127.0.0.2"  # whose rate is not that of the polite clients
# 31,000 subprotocols, by headers whose names are the same to a server.
NAMES = (
    f"{'sec-websocket-protocol'[:n].upper()}{'sec-websocket-protocol'[n:]}" for n in range(1, 9)
)
LARGE_HEADERS = dict.fromkeys(NAMES, "a," * 3900 + "a")
MANY_ADDRESSES = [f"127.0.1.{number}" for number in range(1, 201)]


@attack
def upgrades(target):
    """WebSockets without a token, with a wrong Origin, with large headers, of many addresses."""
    ways = ({}, {"Origin": "https://elsewhere.example"}, {}, LARGE_HEADERS)

    async def one(told, numbers):
        deadline = target.deadline()
        while time.monotonic() < deadline:
            number = next(numbers)
            many = number % 4 == 3
            address = MANY_ADDRESSES[number // 4 % 200] if many else STRANGE_ADDRESS
            where = "of many" if many else "of one"
            try:
                async with asyncio.timeout_at(deadline):
                    socket = await Socket.open(
                        target, STRANGER, headers=ways[number // 2 % 4], address=address
                    )
                told[f"let in, {where}"] += 1
                socket.abort()
            except ConnectionRefusedError as error:
                told[f"{str(error)[9:12]}, {where}"] += 1
            except GONE as error:
                if time.monotonic() < deadline:
                    told[type(error).__name__] += 1

    async def run(told):
        numbers = itertools.count()
        await asyncio.gather(*(one(told, numbers) for _ in range(8)))

    return run


def _bombs(who, connections=12, messages=16):
    def prepare(target):
        bomb = framed(deflated(b" " * (8 * MIB - 1)), compressed=True)

        async def one(told):
            try:
                socket = await Socket.open(target, who, compressed=True)
                await socket.send(bomb * messages)
                told["bytes sent"] += len(bomb) * messages
                async with asyncio.timeout_at(target.deadline()):
                    while True:
                        told[socket.kind_of(*await socket.receive())] += 1
            except GONE as error:
                told[type(error).__name__] += 1

        return many(one, connections)

    return prepare


ATTACKS |= {"bombs_before_a_token": _bombs(STRANGER), "bombs": _bombs(MALLORY)}


def _gets(path, who, parallel=8):
    def prepare(target):
        async def one(told):
            deadline = target.deadline()
            while time.monotonic() < deadline:
                status = await get(target, path, who)
                told[str(status)] += 1
                if status not in {200, 429}:
                    await again(0.01)

        return many(one, parallel)

    return prepare


ATTACKS |= {
    "gets_of_asyncapi": _gets("/asyncapi.json", STRANGER),
    "gets_of_metrics": _gets("/metrics", MALLORY),
}


OVERSIZED = b"".join(b"X-Filler: " + b"a" * 8000 + b"\r\n" for _ in range(3))


@attack
def oversized_headers(target):
    """Requests whose headers are too large, 8 at a time, as fast as they go."""
    request = b"GET / HTTP/1.1\r\nHost: localhost\r\n" + OVERSIZED

    async def one(told):
        deadline = target.deadline()
        while time.monotonic() < deadline:
            try:
                async with asyncio.timeout_at(deadline):
                    reader, writer = await asyncio.open_connection(
                        "127.0.0.1", target.port, local_addr=(STRANGE_ADDRESS, 0)
                    )
                    writer.write(request)
                    told[(await reader.readline()).decode()[9:12] or "closed"] += 1
                    writer.transport.abort()
            except GONE as error:
                if time.monotonic() < deadline:
                    told[type(error).__name__] += 1

    return many(one, 8)


@attack
def unread_pages(target):
    """Six hundred GETs of the page's largest file, of which nothing is read."""
    request = b"GET /screenshot.png HTTP/1.1\r\nHost: localhost\r\n\r\n"

    async def one(told):
        loop = asyncio.get_running_loop()
        with socket.socket() as raw, suppress(*GONE):
            raw.setblocking(False)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            raw.bind((STRANGE_ADDRESS, 0))
            await loop.sock_connect(raw, ("127.0.0.1", target.port))
            await loop.sock_sendall(raw, request)
            told["asked"] += 1
            await asyncio.sleep(target.seconds)
            told[(await loop.sock_recv(raw, 64)).decode()[9:12]] += 1

    return many(one, 600)


@attack
def silent_sockets(target):
    """Four hundred connections that send nothing, each made anew when it is closed."""

    async def one(told):
        deadline = target.deadline()
        while time.monotonic() < deadline:
            try:
                async with asyncio.timeout_at(deadline):
                    reader, writer = await asyncio.open_connection(
                        "127.0.0.1", target.port, local_addr=(STRANGE_ADDRESS, 0)
                    )
                    told["made"] += 1
                    told[(await reader.readline()).decode()[9:12] or "closed"] += 1
                    writer.transport.abort()
            except GONE:
                told["kept"] += time.monotonic() >= deadline
            await again()

    return many(one, 400)


@attack
def long_prompts(target):
    """Three prompts of 2.6 MB, whose sender leaves after a second."""
    frames = [generate(f"p{n}", prompt=f"{n} " + "a word or two " * 186_000) for n in range(3)]

    async def run(told):
        socket = await Socket.open(target)
        for frame in frames:
            await socket.send(frame)
        await answers(socket, 3, told, time.monotonic() + 1.0)
        socket.abort()
        await asyncio.sleep(target.seconds - 1.0)

    return run


@attack
def earlier_calls(target):
    """Two conversations in each of which a call has 7 MiB of empty lists for its arguments."""
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": LISTS}}
    asked = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "1"},
    ]
    return asking(target, [generate(f"c{n}", messages=asked) for n in range(2)])


async def answers(socket, count, told, deadline):
    """Count the ends of so many generations, for as long as there is time."""
    try:
        for _ in range(count):
            end = await socket.until("done", "error", deadline=deadline)
            told[str(end.get("finish_reason") or end.get("code"))] += 1
            if end["type"] == "close":
                return
    except GONE as error:
        told[type(error).__name__] += 1


# Constraints.


def costly_schema(number):
    """Return a schema that takes hours to compile, another for each number."""
    both = [{"multipleOf": 9973 + 2 * number}, {"multipleOf": 9967}]
    return {"type": "integer", "allOf": both}


def costly_format(number=0):
    return {"type": "json_schema", "schema": costly_schema(number)}


def asking(target, frames):
    """Return an attack that sends frames at once, and waits for their answers."""

    async def run(told):
        socket = await Socket.open(target)
        for frame in frames:
            await socket.send(frame)
        await answers(socket, len(frames), told, target.deadline())
        socket.abort()

    return run


@attack
def costly_schemas(target):
    """Twenty-four schemas that take hours to compile, at once."""
    first = secrets.randbelow(1 << 20)
    frames = [
        generate(f"s{n}", prompt="x", response_format=costly_format(first + n)) for n in range(24)
    ]

    return asking(target, frames)


@attack
def tools_of_the_gone(target):
    """Forty tools with such schemas in one frame, whose sender has gone."""
    first = secrets.randbelow(1 << 20)
    tools = [
        {"name": f"f{n}", "parameters": {"properties": {"a": costly_schema(first + n)}}}
        for n in range(40)
    ]
    frame = generate(prompt="x", tools=tools, tool_choice="required")

    async def run(told):
        socket = await Socket.open(target)
        await socket.send(frame)
        await asyncio.sleep(0.2)
        socket.abort()
        told["left"] += 1
        await asyncio.sleep(target.seconds)

    return run


def _rows(count, **given):
    def prepare(target):
        frame = generate(prompt="Count from 3 to 60", n=count, max_tokens=400, **given)

        async def run(told):
            socket = await Socket.open(target)
            await socket.send(frame)
            await answers(socket, 1, told, target.deadline())
            socket.abort()

        return run

    return prepare


SLOW_MASKS = "([a-z ]{1,400}[a-y ]{1,400}){1,50}"  # each letter is counted on from
SLOW_LARK = "start: s\ns: s s | s s s | /[a-zA-Z ]/"  # each text has very many derivations

ATTACKS |= {
    "plain_rows": _rows(16, temperature=1.0, seed=1),
    "slow_masks": _rows(
        16, temperature=1.0, response_format={"type": "regex", "regex": SLOW_MASKS}
    ),
    "slow_lark": _rows(16, temperature=1.0, response_format={"type": "lark", "grammar": SLOW_LARK}),
}


# Counting.


@attack
def many_answers(target):
    """Forty frames that ask for 32 long answers each."""
    long = {"prompt": "Count from 1 to 999", "max_tokens": 4000}
    frames = [generate(f"n{n}", n=32, **long) for n in range(40)]

    async def run(told):
        socket = await Socket.open(target)
        reader = asyncio.create_task(answers(socket, len(frames), told, target.deadline()))
        for frame in frames:
            await socket.send(frame)
        await reader
        socket.abort()

    return run


@attack
def capped_token(target):
    """Two frames of 32 answers each, over and over, with a token that may have two generations."""
    long = {"prompt": "Count from 1 to 999", "max_tokens": 4000}
    frames = [generate(f"c{n}", n=32, **long) for n in range(2)]

    async def run(told):
        deadline = target.deadline()
        socket = await Socket.open(target, CAPPED)
        while time.monotonic() < deadline:
            for frame in frames:
                await socket.send(frame)
            await answers(socket, len(frames), told, deadline)
            await again()
        socket.abort()

    return run


@attack
def unread_nonces(target):
    """Pings with nonces of 8 MiB on eight connections that read no answer."""
    frame = framed(b'{"type":"ping","nonce":"' + b"x" * (8 * MIB - 64) + b'"}')

    async def one(told):
        with suppress(*GONE):
            socket = await Socket.open(target)
            async with asyncio.timeout_at(target.deadline()):
                for _ in range(16):
                    await socket.send(frame)
                    told["frames sent"] += 1
                await asyncio.sleep(target.seconds)

    return many(one, 8)


@attack
def unread_items(target):
    """Items of 1 MiB on eight connections of Realtime, asked for 250 times, and never read."""
    text = {"type": "input_text", "text": "x" * MIB}
    item = {"type": "message", "id": "large", "role": "user", "content": [text]}
    create = framed(msgspec.json.encode({"type": "conversation.item.create", "item": item}))
    retrieve = framed(b'{"type":"conversation.item.retrieve","item_id":"large"}')

    async def one(told):
        with suppress(*GONE):
            socket = await Socket.open(target, protocol="realtime", path="/v1/realtime")
            async with asyncio.timeout_at(target.deadline()):
                await socket.send(create)
                told["items sent"] += 1
                for _ in range(250):
                    await socket.send(retrieve)
                    told["asked for"] += 1
                await asyncio.sleep(target.seconds)

    return many(one, 8)


@attack
def begun_frames(target):
    """All but the last bytes of 24 frames of 8 MiB, half of them with another token."""
    begun = framed(b'{"type":"ping","nonce":"' + b"x" * (8 * MIB - 64) + b'"}')[:-64]

    async def one(told, who):
        try:
            socket = await Socket.open(target, who)
            socket.writer.write(begun)
            end = await socket.until(deadline=target.deadline())
            told[f"closed {end['code']}"] += 1
        except TimeoutError:
            told["open to the end"] += 1
        except GONE as error:
            told[type(error).__name__] += 1

    async def run(told):
        await asyncio.gather(*(one(told, (MALLORY, CAPPED)[n % 2]) for n in range(24)))

    return run


@attack
def unbuilt_requests(target):
    """Sixty-four requests of 7 MiB on 16 connections, whose prompts wait for costly schemas."""
    first, prompt = secrets.randbelow(1 << 20), "a word or two " * (7 * MIB // 14)
    numbers = itertools.count()

    async def send(socket):
        for _ in range(4):
            number = next(numbers)
            response_format = costly_format(first + number)
            await socket.send(
                generate(f"u{number}", prompt=prompt, response_format=response_format)
            )

    async def one(told):
        deadline = target.deadline()
        with suppress(*GONE):
            socket = await Socket.open(target)
            sending = asyncio.create_task(send(socket))
            try:
                end = {}
                while end.get("type") != "close":
                    end = await socket.until("done", "error", deadline=deadline)
                    told[_refusal_of(end)] += 1
            finally:
                sending.cancel()
                socket.abort()

    async def run(told):
        senders = [asyncio.create_task(one(told)) for _ in range(16)]
        deadline = target.deadline()
        while time.monotonic() < deadline and told[UNBUILT] < 16:
            await asyncio.sleep(0.1)
        for sender in senders:
            sender.cancel()

    return run


UNBUILT = "overloaded for what is not built, retry_after"


def _refusal_of(end):
    """Return why a request was refused, and whether it is said when to try again."""
    said = str(end.get("code") or end.get("finish_reason"))
    said += " for what is not built" * ("to be built" in end.get("message", ""))
    return said + ", retry_after" * bool(end.get("retry_after"))


@attack
def memory_queue(target):
    """A long run, and another that takes most of the memory and has to wait for that."""
    # However soon the model would end, and with nothing that a draft would guess.
    long = {"type": "regex", "regex": "[a-z ]{12000}"}
    frame = generate(prompt="Go on", max_tokens=4000, temperature=2.0, seed=1, response_format=long)
    large = generate(prompt="Count from 1 to 9", max_tokens=8000)

    async def run(told):
        deadline = target.deadline()
        first, second = await Socket.open(target), await Socket.open(target, CAPPED)
        await first.send(frame)
        await first.until("started", "error", deadline=deadline)
        await second.send(large)
        begins = asyncio.create_task(second.until("started", "error", deadline=deadline))
        done, _ = await asyncio.wait([begins], timeout=target.seconds / 2)
        told["the large one waits"] += not done
        first.abort()
        with suppress(*GONE):
            begun = await begins
            told[f"then it is {begun.get('code') or begun['type']}"] += 1
        second.abort()

    return run


@attack
def log_probabilities(target):
    """Forty answers at once, not streamed, with twenty log-probabilities a token."""
    frames = [
        generate(
            f"l{n}",
            prompt="Count from 1 to 999",
            stream=False,
            logprobs=True,
            top_logprobs=20,
            max_tokens=4000,
        )
        for n in range(40)
    ]

    return asking(target, frames)


@attack
def constraint_without_files(target):
    """A costly constraint from a client that was there before all descriptors were taken."""
    frame = generate(prompt="x", response_format=costly_format(secrets.randbelow(1 << 20)))

    async def run(told):
        deadline = target.deadline()
        socket = await Socket.open(target)
        others = asyncio.create_task(connections(target)(Counter()))
        await asyncio.sleep(1.0)
        await socket.send(frame)
        end = await socket.until("done", "error", deadline=deadline)
        told["answer"] = end.get("code") or end.get("finish_reason")
        await others

    return run


@attack
def connections(target):
    """Three hundred and twenty connections that are kept, and go on being tried for."""

    async def one(told):
        deadline = target.deadline()
        while time.monotonic() < deadline:
            try:
                async with asyncio.timeout_at(deadline):
                    socket = await Socket.open(target)
                told["open"] += 1
                await socket.ignore(deadline)
                return
            except ConnectionRefusedError as error:
                told[str(error)] += 1
            except GONE as error:
                told[type(error).__name__] += 1
            await again(0.2)

    return many(one, 320)


# What holds.


@attack
def guessed_tickets(target):
    """Tickets that nobody was given, as fast as the rate allows, and beyond."""
    ticket = base64.urlsafe_b64encode(os.urandom(16)).rstrip(b"=").decode()
    frames = [
        framed(
            msgspec.json.encode(
                {"type": "resume", "id": "a", "ticket": ticket[:-4] + f"{n:04d}", "after": -1}
            )
        )
        for n in range(200)
    ]

    async def run(told):
        deadline = target.deadline()
        while time.monotonic() < deadline:
            try:
                socket = await Socket.open(target)
                while time.monotonic() < deadline:
                    await socket.send(b"".join(frames))
                    for _ in frames:
                        end = await socket.until("error", "started", deadline=deadline)
                        told[str(end["code"] if "code" in end else end["type"])] += 1
                        if end["type"] == "close":
                            raise EOFError
            except GONE:
                await again()

    return run


@attack
def left_answers(target):
    """Resumable answers that go on when their page is left, begun and left over and over."""
    number = itertools.count()
    given = {"prompt": "Tell me a story", "max_tokens": 4000}

    async def one(told):
        deadline = target.deadline()
        while time.monotonic() < deadline:
            with suppress(*GONE):
                left = await Socket.open(target)
                frames = [
                    generate(f"l{next(number)}", resumable=True, keep_on_close=True, **given)
                    for _ in range(32)
                ]
                await left.send(b"".join(frames))
                for _ in frames:
                    end = await left.until("started", "error", deadline=deadline)
                    told[str(end.get("code") or end["type"])] += 1
                left.abort()

    return many(one, 4)


@attack
def followers(target):
    """Second readers of a long answer, who read it from its beginning and leave, over and over."""
    asked = {"prompt": "Tell me a story", "max_tokens": 4000, "resumable": True}
    leave = framed(b'{"type":"cancel","id":"f"}')

    async def one(told, ticket, deadline):
        follow = {"type": "resume", "id": "f", "ticket": ticket, "after": -1, "follow": True}
        frame = framed(msgspec.json.encode(follow))
        while time.monotonic() < deadline:
            with suppress(*GONE):
                socket = await Socket.open(target)
                while time.monotonic() < deadline:
                    await socket.send(frame)
                    end = await socket.until("started", "error", deadline=deadline)
                    told[str(end.get("code") or end["type"])] += 1
                    if end["type"] == "started":
                        await again(0.05)
                        await socket.send(leave)
                        await socket.until("done", "error", deadline=deadline)
                    else:
                        await again()

    async def run(told):
        deadline = target.deadline()
        first = await Socket.open(target)
        await first.send(generate("l", **asked))
        ticket = (await first.until("started", deadline=deadline))["ticket"]
        reader = asyncio.create_task(first.ignore(deadline))
        await asyncio.gather(*(one(told, ticket, deadline) for _ in range(24)), reader)

    return run


@attack
def stalled_log_probabilities(target):
    """Thirty readers that ask for long answers with log-probabilities, and stop reading."""
    asked = {"prompt": "Tell me a story", "logprobs": True, "top_logprobs": 20, "max_tokens": 4000}

    async def one(told):
        with suppress(*GONE):
            stalled = await Socket.open(target)
            stalled.writer.transport.pause_reading()
            await stalled.send(generate(**asked))
            told["stalled"] += 1
            await asyncio.sleep(target.seconds)
            stalled.abort()

    return many(one, 30)


@attack
def churn(target):
    """Clients that start, cancel, vanish and come back."""
    start = generate(prompt="Tell me a story", max_tokens=100, resumable=True)
    cancel = framed(b'{"type":"cancel","id":"a"}')

    async def one(told, number):
        choice, deadline = random.Random(number), target.deadline()
        while time.monotonic() < deadline:
            with suppress(*GONE):
                socket = await Socket.open(target)
                await socket.send(start)
                if choice.random() < 0.7:
                    end = await socket.until("started", "error", deadline=deadline)
                    told[str(end.get("code") or end["type"])] += 1
                if choice.random() < 0.5:
                    await socket.send(cancel)
                socket.abort()
            await asyncio.sleep(0.02)

    async def run(told):
        await asyncio.gather(*(one(told, number) for number in range(8)))

    return run


@attack
def hostile_options(target):
    """Options whose values are far too long, or have thousands of fields below a long name."""
    long = "x" * (2 * MIB)
    fields = {f"field {n}": {"type": "string"} for n in range(7000)}
    below = {"properties": {long[: MIB - 160_000]: {"properties": fields}}}
    given = [
        *({name: long} for name in ("model", "stop", "tool_choice")),
        {"stop": ["ab"] * 16_000},
        {"logit_bias": {str(n): 1.0 for n in range(8000)}},
        {"chat_template_kwargs": {f"{long} ": 1}},
        {"tools": [{"name": f"f{n}"} for n in range(5000)]},
        {"tools": [{"name": "f", "parameters": {"properties": {long: below}}}]},
        {"response_format": {"type": long}},
        {"response_format": {"type": "regex", "regex": long}},
        {"response_format": {"type": "json_schema", "schema": {**below, "const": 1 << 60}}},
        {"seed": 10**4000},
        {"top_k": -(10**4000)},
        {"temperature": 1e308},
    ]
    frames = [generate(f"h{n}", prompt="x", max_tokens=5, **one) for n, one in enumerate(given)]
    return asking(target, frames)


@attack
def slow_http(target):
    """Two hundred requests that arrive a byte at a time, and never end."""

    async def one(told):
        deadline = target.deadline()
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", target.port)
            writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
            for byte in itertools.cycle(b"X-Slow: a\r\n"):
                if time.monotonic() > deadline:
                    break
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.05)
            told["open to the end"] += 1
        except GONE:
            told["closed"] += 1

    return many(one, 200)


@attack
def stalled_readers(target):
    """Thirty readers that ask for long answers and stop reading."""
    frame = generate(prompt="Tell me a story", max_tokens=4000)

    async def one(told):
        with suppress(*GONE):
            socket = await Socket.open(target)
            socket.writer.transport.pause_reading()
            await socket.send(frame)
            told["stalled"] += 1
            await asyncio.sleep(target.seconds)
            socket.abort()

    return many(one, 30)


@attack
def anything(target):
    """All attacks in random order, one after the other, each for some seconds; says which began."""
    choice = random.Random(target.seed)
    names = sorted(target.only or ATTACKS.keys() - NOT_AT_RANDOM)

    async def run(told):
        until = target.deadline()
        while time.monotonic() < until:
            name = choice.choice(names)
            one = dataclasses.replace(target, seconds=choice.uniform(1.0, 4.0))
            send = ATTACKS[name](one)
            print(json.dumps({"began": name, "at": time.monotonic()}), flush=True)
            with suppress(*GONE):
                async with asyncio.timeout(one.seconds + 1):
                    await send(Counter())
            told[name] += 1

    return run


def main():
    gc.freeze()  # the process that it was forked from has imported much
    name, given = sys.argv[1], json.loads(sys.argv[2])
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(FILES, most), most))
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0) + given.pop("nice"))
    run, told = ATTACKS[name](Target(**given)), Counter()
    print("ready", flush=True)
    sys.stdin.readline()

    async def bounded():
        with suppress(*GONE):
            async with asyncio.timeout(given["seconds"] + 1):
                await run(told)

    asyncio.run(bounded())
    print(json.dumps(told), flush=True)
    os._exit(0)  # without waiting for what is still to be sent


if __name__ == "__main__":
    main()
