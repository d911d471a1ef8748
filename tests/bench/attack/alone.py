"""Cases that compare no times: most have a gateway that is limited, signalled, or damaged."""

import asyncio
import base64
import io
import os
import shutil
import signal
import stat
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial

from gateway.server.tokens import as_toml
from provider.embedded import MODEL_PATH
from tests.bench.attack.attacks import MIB
from tests.bench.attack.bench import BRIEF, COUNTING, FEW_FILES, MODEL, SCRIPTED, case, ending
from tests.bench.attack.gateways import (
    ALICE,
    MALLORY,
    SECRETS,
    Attacker,
    NotStartedError,
    limited,
    start,
    write_tokens,
)
from tests.bench.attack.hostile import GONE, Socket, generate, get
from tests.bench.attack.judging import Check, answers_right, told, told_only
from tests.bench.attack.polite import (
    Question,
    Watch,
    answer_alone,
    asked,
    connected,
    memory_of,
)

BRIEF_S = 6.0  # what a brief gateway may take to end: its grace, two stages of closing, and some
untimed = partial(case, timed=False)


def ended_in_time(ended, most=BRIEF_S):
    """Check that a gateway has ended in order after SIGTERM."""
    holds = ended.status == 0 and not ended.killed and ended.seconds <= most
    said = "killed" if ended.killed else f"{ended.seconds:.1f} s, status {ended.status}"
    return Check("ended after", said, holds, f"at most {most:g} s, status 0")


def still_answers(text, expected):
    return Check("then answers", "rightly" if text == expected else "wrongly", text == expected)


# Those that take long to start are first, so that others go on beside them.


def png_of(width, height):
    """Return an image of one colour in base64."""
    from PIL import Image

    data = io.BytesIO()
    Image.new("RGB", (width, height), "navy").save(data, "PNG", compress_level=1)
    return base64.b64encode(data.getvalue()).decode()


@untimed("rest", "images of 8,000 by 8,000 and of 60,000 by 1 pixels, in some KB")
async def big_images(bench):
    from tests.support.tiny_vision import write_vision_model

    model = write_vision_model(bench.new_folder() / "model", "llava")
    served = await start(*BRIEF, "--model", model)
    async with ending(served):
        fields = {"prompt": "What is this?", "temperature": 0.0, "max_tokens": 40}
        right, each = await answer_alone(served.port, None, fields)
        question = Question(lambda _: fields, lambda _: right, each)
        watch, answers = Watch(served.port, None, question, served.pid), {}

        async def show():
            for size in ((8000, 8000), (60_000, 1)):
                shown = await asyncio.to_thread(png_of, *size)
                files = [{"name": "big.png", "mime": "image/png", "data": shown}]
                _, last = await asked(served.port, None, **fields, files=files)
                answers[str(size)] = last.get("code") or last["finish_reason"]

        await watch.during(show())
    taken = watch.seen.memory / MIB
    return [
        Check("memory", f"{taken:.0f} MiB", taken <= 800, "at most 800 MiB"),
        answers_right(watch.seen),
        told(answers),
    ]


@untimed("rest", "40 frames of 32 answers under a limit of 2 GiB of address space")
async def memory_limit(bench):
    tokens = write_tokens(bench.new_folder() / "tokens.toml")
    try:
        served = await start("--token-file", tokens, program=limited("-v 2097152"))
    except NotStartedError as error:
        said = error.said[-120:]
        holds = error.status is not None and error.status > 0 and "Traceback" not in error.said
        return [Check("start", f"status {error.status}: {said}", holds, "a reason, no signal")]
    async with ending(served):
        attacker = await Attacker.ready("many_answers", served, 4.0)
        answers = await attacker.attack()
        alive = served.alive()
        status = "lives" if alive else f"ended with {served.command.process.wait()}"
        checks = [Check("the gateway", status, alive, "lives")]
        checks.append(told(answers))
        return checks


@untimed("rest", "a temporary folder that others can write to, and what is compiled there")
async def compiled_code(bench):
    folder = bench.new_folder()
    folder.chmod(0o1777)
    # In a new interpreter: where it is forked, mlx has been imported with another environment.
    served = await start(*BRIEF, env={**os.environ, "TMPDIR": str(folder)}, fresh=True)
    async with ending(served):
        await asked(served.port, None, **COUNTING)
    code = [path for path in folder.rglob("*") if path.suffix in {".so", ".cpp"}]
    exposed = [path for path in code if not _in_private(path, folder)]
    said = f"{len(exposed)} files of code"
    return [Check("where others can write", said, not exposed, "none")]


def _in_private(path, folder):
    """Return whether a folder on the way from `folder` to a file is its user's alone."""
    between = [one for one in path.parents if folder in one.parents]
    return any(stat.S_IMODE(one.stat().st_mode) == stat.S_IRWXU for one in between)


# Constraints.


@untimed("constraints", "a list of 3,000 choices; a form that becomes too complex")
async def never_without_its_form(bench):
    served = await bench.shared(MODEL)
    words = [f"{n * 7919 % 99991} pieces of {n}" for n in range(3000)]
    formats = [
        ({"type": "choice", "choices": words}, words.__contains__),
        ({"type": "regex", "regex": "([a-z]{1,400}[a-y]{1,400}){1,50}"}, lambda text: True),
    ]
    checks = []
    for response_format, fits in formats:
        text, last = await asked(
            served.port,
            SECRETS[ALICE],
            prompt="Tell me a story",
            response_format=response_format,
            max_tokens=400,
            temperature=1.0,
            seed=1,
        )
        said = last.get("code") or last["finish_reason"]
        holds = said != "stop" or fits(text)
        checks.append(Check(response_format["type"], said, holds, "its form, or no stop"))
    return checks


@untimed("constraints", "a costly schema while no descriptor is left")
async def no_descriptors(bench):
    tokens = write_tokens(bench.new_folder() / "tokens.toml")
    served = await start(*BRIEF, "--token-file", tokens, python=FEW_FILES)
    async with ending(served):
        before = memory_of(served.pid)
        attacker = await Attacker.ready("constraint_without_files", served, 5.0)
        watch = Watch(served.port, SECRETS[ALICE], await bench.counting(MODEL), served.pid)
        answers = await watch.during(attacker.attack())
        taken = (memory_of(served.pid) - before) / MIB
        checks = [
            Check("memory", f"{taken:.0f} MiB", taken <= 300, "at most 300 MiB"),
            Check("attacker", str(answers.get("answer")), "answer" in answers, "an answer"),
            answers_right(watch.seen),
        ]
        return [*checks, ended_in_time(await served.end())]


@untimed("constraints", "integers of 71 bits in a schema")
async def big_integers(bench):
    served = await bench.shared(MODEL)
    schema = {"type": "integer", "minimum": 2**70}
    response_format = {"type": "json_schema", "schema": schema}
    _, last = await asked(
        served.port, SECRETS[ALICE], prompt="x", response_format=response_format, max_tokens=5
    )
    said = last.get("message") or last["finish_reason"]
    return [Check("answer", said[:80], "regex" not in said, "nothing about regular expressions")]


# Counting.


async def waiting_text(served):
    """Return how many bytes of text wait for the gateway's clients."""
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
    page = (await reader.read()).decode()
    writer.close()
    return float(page.partition("\nmlx_gateway_waiting_text_bytes ")[2].partition("\n")[0])


async def waiting_during(attacker, served):
    """Attack; return the answers, and how many MiB of text waited, five times a second."""
    attack = asyncio.create_task(attacker.attack())
    waited = []
    while not attack.done():
        waited.append(await waiting_text(served) / MIB)
        await asyncio.sleep(0.2)
    return await attack, waited


@untimed("counting", "30 readers of log-probabilities that have stopped, where 1 MiB may wait")
async def text_for_all(bench):
    served = await start(*SCRIPTED, *BRIEF, "--outbox-total-bytes", MIB)
    async with ending(served):
        attacker = await Attacker.ready("stalled_log_probabilities", served, 5.0)
        answers, waited = await waiting_during(attacker, served)
    # The last piece of each is one word, with 20 log-probabilities in 13 KB.
    most = 1 + answers.get("stalled", 0) * 13_440 / MIB
    holds = 0.5 <= max(waited) <= most
    return [Check("waits", f"{max(waited):.1f} MiB", holds, f"0.5 to {most:.1f} MiB")]


@untimed("counting", "40 answers of a script that are not streamed, where 1 MiB may wait")
async def answers_for_all(bench):
    served = await start(*SCRIPTED, *BRIEF, "--outbox-total-bytes", MIB)
    async with ending(served):
        attacker = await Attacker.ready("log_probabilities", served, 10.0)
        answers, waited = await waiting_during(attacker, served)
    most = max(waited)
    return [
        Check("held", f"{most:.2f} MiB", 0.2 <= most <= 0.75, "0.2 to 0.75 MiB, of a client"),
        told_only(answers, "overloaded", "stop"),
    ]


@untimed("counting", "400 connections that send nothing, where the process may have 256 files")
async def silent_connections(bench):
    served = await start(*SCRIPTED, *BRIEF, python=FEW_FILES)
    async with ending(served):
        attacker = await Attacker.ready("silent_sockets", served, 3.0)
        attack = asyncio.create_task(attacker.attack())
        await asyncio.sleep(1.0)
        let_in = []
        for _ in range(5):
            with suppress(*GONE):
                newcomer = await Socket.open(served.target())
                newcomer.abort()
                let_in.append(newcomer)
            await asyncio.sleep(0.2)
        answers = await attack
    said = f"{len(let_in)} of 5"
    return [Check("another address, let in", said, len(let_in) == 5, "each time"), told(answers)]


# The rest.


def looping_model(folder):
    """Make a copy of the embedded model whose template does not end for one prompt."""
    model = folder / "model"
    shutil.copytree(MODEL_PATH, model)
    template = model / "chat_template.jinja"
    loop = "".join(f"{{%- for a{n} in range(99999) -%}}" for n in range(3))
    ends = "{%- endfor -%}" * 3
    when = "{%- if messages and 'go round' in messages[-1].content -%}"
    template.write_text(f"{when}{loop}{ends}{{%- endif -%}}" + template.read_text())
    return model


async def _sigterm_beside(served, frame):
    """Send a frame and, half a second later, SIGTERM."""
    async with ending(served):
        socket = await Socket.open(served.target())
        await socket.send(frame)
        await asyncio.sleep(0.5)
        ended = await served.end()
        socket.abort()
    return [ended_in_time(ended)]


@untimed("rest", "SIGTERM while a template loops")
async def sigterm_in_a_template(bench):
    served = await start(*BRIEF, "--model", looping_model(bench.new_folder()))
    return await _sigterm_beside(served, generate(prompt="go round"))


@untimed("rest", "SIGTERM while a prompt of 8 MiB is made")
async def sigterm_in_a_prompt(bench):
    served = await start(*BRIEF)
    frame = generate(prompt="a word or two " * (8 * MIB // 14 - 100))
    return await _sigterm_beside(served, frame)


@untimed("rest", "prefixes on disk that were cut off, altered and written by others")
async def damaged_prefixes(bench):
    folder = bench.new_folder()
    question = {**COUNTING, "system_prompt": "Your name is Marlo. " * 40}
    served = await start(*BRIEF, "--prefix-cache-dir", folder)
    async with ending(served):
        right, _ = await asked(served.port, None, **question)
        await served.end()
    files = list(folder.glob("*/*.safetensors"))
    if not files:
        return [Check("files", "none", False, "one at least")]
    for number, damage in enumerate(DAMAGE):
        spoilt = files[0].with_name(f"{number:032x}.safetensors")
        spoilt.write_bytes(damage(files[0].read_bytes()))
    files[0].write_bytes(altered(files[0].read_bytes()))
    try:
        served = await start(*BRIEF, "--prefix-cache-dir", folder)
    except NotStartedError as error:
        return [Check("start", error.said[-80:], False, "starts")]
    async with ending(served):
        text, last = await asked(served.port, None, **question)
        ended = await served.end()
    cached = last.get("usage", {}).get("cached_tokens")
    traces = ended.log.count("Traceback")
    return [
        still_answers(text, right),
        Check("tokens taken from them", str(cached), cached == 0, "0"),
        Check("tracebacks", str(traces), traces == 0, "0"),
    ]


def altered(data):
    """Change the body and not the header."""
    body = 8 + int.from_bytes(data[:8], "little")
    middle = (body + len(data)) // 2 // 4 * 4
    return data[:middle] + b"\x00\x00\x80\x3f" * 64 + data[middle + 256 :]


def _header(text):
    return lambda data: len(text).to_bytes(8, "little") + text + data[-64:]


DAMAGE = (
    lambda data: data[: len(data) // 2],
    lambda data: data[:6],
    lambda data: b"",
    lambda data: (1 << 62).to_bytes(8, "little") + data[8:],
    _header(b"[" * 100_000),
    _header(b"[]"),
    _header(b'{"__metadata__": []}'),
    _header(b'{"__metadata__": {"0.format": 3}}'),
    _header(b"\xff\xfe not JSON"),
    altered,
)


@untimed("rest", "paths of 300 and 60,000 characters, and of bytes that are no text")
async def long_paths(bench):
    served = await bench.shared(SCRIPTED)
    paths = ["/" + "a" * 300 + ".html", "/" + "a" * 5000 + ".html", "/" + "a" * 60_000, "/%00.html"]
    statuses = [await get(served.target(), path) for path in paths]
    said = ", ".join(map(str, statuses))
    return [Check("statuses", said, not set(statuses) & {200, 500}, "no 200, no 500")]


@untimed("rest", "X-Forwarded-For with a port, from a trusted proxy")
async def forwarded_addresses(bench):
    served = await start(
        *SCRIPTED, "--trusted-proxies", "127.0.0.1", "--max-connections-per-address", "2"
    )
    async with ending(served):
        kept, seen = [], []
        for address in ("1.2.3.4:1", "1.2.3.4:2", "1.2.3.4:3", "5.6.7.8:1", "[2001:db8::1]:9"):
            try:
                kept.append(
                    await Socket.open(served.target(), None, headers={"X-Forwarded-For": address})
                )
                seen.append("in")
            except GONE as error:
                seen.append(str(error).split()[1])
        for socket in kept:
            socket.abort()
    right = ["in", "in", "429", "in", "in"]
    return [Check("let in", ", ".join(seen), seen == right, ", ".join(right))]


@untimed("rest", "a HUP that lets a token expire whose connection is open; the debug log")
async def expired_tokens(bench):
    file = write_tokens(bench.new_folder() / "tokens.toml")
    served = await start(*SCRIPTED, "--token-file", file, "--log-level", "debug")
    async with ending(served):
        wire = await connected(served.port, SECRETS[ALICE])
        past = datetime.now(UTC) - timedelta(hours=1)
        entries = [as_toml(ALICE, SECRETS[ALICE], past), as_toml(MALLORY, SECRETS[MALLORY], None)]
        file.write_text("\n".join(entries))
        os.kill(served.pid, signal.SIGHUP)
        until = time.monotonic() + 5
        while await get(served.target(), "/v1/models", ALICE) != 401 and time.monotonic() < until:
            await asyncio.sleep(0.02)
        said = "closed"
        with suppress(Exception):
            await wire.socket.send('{"type": "generate", "id": "a", "prompt": "3"}')
            last = (await wire.until("started", "done", "error"))[-1]
            said = last.get("code") or last["type"]
        await wire.socket.close()
        ended = await served.end()
    found = [name for name, secret in SECRETS.items() if secret in ended.log]
    return [
        Check("its next request", said, said in {"unauthorized", "closed"}, "unauthorized"),
        Check("tokens in the debug log", str(len(found)), not found, "none"),
    ]


@untimed("rest", "a token file that is not UTF-8")
async def token_file_of_bytes(bench):
    file = bench.new_folder() / "tokens.toml"
    file.write_bytes(b'[tokens.a]\nsha256 = "\xff\xfe"\n')
    try:
        served = await start(*SCRIPTED, "--token-file", file)
    except NotStartedError as error:
        holds = error.status == 2 and "Traceback" not in error.said
        return [Check("start", f"status {error.status}", holds, "status 2, no traceback")]
    await served.end()
    return [Check("start", "it serves", False, "status 2")]


# What holds.


@untimed("holds", "SIGTERM under 60 streams and 20 readers that have stopped")
async def shutdown_under_load(bench):
    served = await start(*SCRIPTED, *BRIEF)
    async with ending(served):
        readers, stalled = [], []
        for number in range(80):
            socket = await Socket.open(served.target())
            await socket.send(generate(prompt="Tell me a story"))
            if number < 60:
                reading = socket.until("done", "error", deadline=time.monotonic() + 10)
                readers.append(asyncio.create_task(reading))
            else:
                socket.writer.transport.pause_reading()
                stalled.append(socket)
        await asyncio.sleep(0.5)
        ended = await served.end()
        ends = await asyncio.gather(*readers, return_exceptions=True)
        for socket in stalled:
            socket.abort()
    kinds = sorted({end["type"] if isinstance(end, dict) else type(end).__name__ for end in ends})
    ends_rightly = Check("streams ended with", ", ".join(kinds), kinds == ["done"], "done")
    return [ended_in_time(ended), ends_rightly]
