"""Downloads by the hub's real client, from a stand-in for the hub.

In processes of their own: where the hub is, is read from the environment when that client is
imported. They are forked from one that has imported it.
"""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.commands.failure import ExitStatus
from provider.models.hub import _is_of_disk
from tests.support import programs
from tests.support.hub import TOKEN, standing_in
from tests.support.programs import GATEWAY, ForkServer, Program, interpreter
from tests.support.timeouts import TIMEOUT
from tests.support.tiny_models import LLAMA, write_model

MODEL = "acme/tiny"
GENERATE = """
from provider import MLXProvider
llm = MLXProvider({'model': %(model)r, 'max_tokens': 3, 'temperature': 0.0})
print(llm.generate('Hi').usage['completion_tokens'])
llm.close()
"""


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory):
    """A stand-in with a home for downloads, and a server for programs that know both."""
    with standing_in() as hub:
        hub.home = tmp_path_factory.mktemp("hub") / "home"
        # As the command line has it before it imports the client.
        hub.programs = ForkServer(environment(hub, HF_HUB_DISABLE_PROGRESS_BARS="1"))
        yield hub
        hub.programs.close()


@pytest.fixture
def hub(stand_in, tmp_path):
    stand_in.reset()
    shutil.rmtree(stand_in.home, ignore_errors=True)
    stand_in.repositories[MODEL] = write_model(tmp_path / "repository", LLAMA)
    (stand_in.repositories[MODEL] / "README.md").write_text("Not of use to anybody here.")
    yield stand_in
    stand_in.go_on.set()  # for a request that a failed test has left


def environment(hub, **more):
    own = {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(hub.home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return {**kept, **own, **more}


def run(hub, *arguments, **variables):
    options = {"env": environment(hub, **variables), "server": hub.programs}
    return programs.run(*GATEWAY, *arguments, **options)


def run_code(hub, code):
    return programs.run("-c", code, env=environment(hub), server=hub.programs)


def generate(hub, model=MODEL):
    return run_code(hub, GENERATE % {"model": model})


@contextmanager
def started(hub, code):
    """Start a program, and give it with what types to it and what reads its output."""
    (stdin, typing), (reading, stdout) = os.pipe(), os.pipe()
    program = Program(["-c", code], [stdin, stdout, 2], env=environment(hub), server=hub.programs)
    os.close(stdin)
    os.close(stdout)
    with os.fdopen(typing, "w") as to_it, os.fdopen(reading) as from_it:
        yield program, to_it, from_it


def run_alone(hub, *arguments, **variables):
    """Run a program that imports the hub's client with other variables."""
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=TIMEOUT * 6,
        env=environment(hub, **variables),
        check=False,
    )


def asked_for(hub, name):
    return [asked for asked in hub.requests if asked[0] == "GET" and asked[1].endswith(name)]


def test_a_model_is_pulled_and_checked(hub):
    done = run(hub, "pull", MODEL)
    assert done.returncode == ExitStatus.OK, done.stderr
    folder = done.stdout.strip()
    assert sorted(path.name for path in Path(folder).iterdir()) == [
        "chat_template.jinja",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert "verified 5 files; " in done.stderr
    count = len(asked_for(hub, "model.safetensors"))
    again = run(hub, "pull", MODEL)
    assert again.stdout == done.stdout
    assert len(asked_for(hub, "model.safetensors")) == count, "it was downloaded again"
    assert generate(hub).stdout.strip() == "3"


@pytest.fixture
def size(hub, tmp_path):
    """Make the model large, and return how large its weights are.

    The client writes 10 MB at a time; what has not been written is lost with the connection.
    """
    large = {**LLAMA, "hidden_size": 256, "intermediate_size": 12_000, "num_hidden_layers": 1}
    hub.repositories[MODEL] = write_model(tmp_path / "large", large)
    size = (hub.repositories[MODEL] / "model.safetensors").stat().st_size
    assert size > 30_000_000
    return size


def test_a_download_continues_after_a_lost_connection(hub, size):
    hub.cut_after = size - 1000
    done = run(hub, "pull", MODEL)
    if done.returncode != ExitStatus.OK:  # the client may try again by itself
        done = run(hub, "pull", MODEL)
    assert done.returncode == ExitStatus.OK, done.stderr
    ranges = [asked[2] for asked in asked_for(hub, "model.safetensors")]
    assert ranges[0] is None
    begins = [int(asked.removeprefix("bytes=").partition("-")[0]) for asked in ranges[1:] if asked]
    assert begins, "it began anew"
    assert all(10_000_000 <= begin <= size - 1000 for begin in begins)
    assert generate(hub).stdout.strip() == "3"


def test_an_interrupted_pull_ends_at_once_and_keeps_complete_files(hub, size, tmp_path):
    hub.hold_after = size - 1000
    said = tmp_path / "said"
    with said.open("w") as file:
        streams = [subprocess.DEVNULL, subprocess.DEVNULL, file.fileno()]
        command = [sys.executable, *GATEWAY, "pull", MODEL]
        pulling = interpreter(command, streams, env=environment(hub))
    assert hub.holding.wait(60)
    pulling.send_signal(signal.SIGINT)
    assert pulling.wait(TIMEOUT * 2) == ExitStatus.INTERRUPTED  # the hub still holds the rest
    assert (
        said.read_text().strip()
        == "stopped; run the same command again to download the missing files"
    )
    assert not hub.go_on.is_set()
    assert not list(hub.home.rglob("*.incomplete"))
    hub.go_on.set()
    assert run(hub, "pull", MODEL).returncode == ExitStatus.OK


def test_closing_stops_a_download(hub, size):
    code = (
        "import threading; from provider import MLXProvider\n"
        f"llm = MLXProvider({{'model': {MODEL!r}}})\n"
        "loading = llm._library.default.ready()\n"
        "input(); closing = threading.Thread(target=llm.close); closing.start()\n"
        "while not llm._library.default.closed: pass\n"
        "print('closed', flush=True); closing.join(); print(loading.exception())"
    )
    hub.hold_after = size // 2
    with started(hub, code) as (loading, typing, reading):
        assert hub.holding.wait(60)
        print(file=typing, flush=True)
        assert reading.readline() == "closed\n"
        hub.go_on.set()
        assert loading.wait(TIMEOUT * 2) == 0
        assert reading.read().strip() == "the provider is closed"
    assert not list(hub.home.rglob("model.safetensors"))


def test_a_waiting_caller_gets_the_progress_of_the_download(hub, size):
    code = (
        "import asyncio, json; from provider import MLXProvider\n"
        "async def main():\n"
        f"    llm = MLXProvider({{'model': {MODEL!r}, 'max_tokens': 2}})\n"
        "    stream = await llm.generate_async('Hi', stream=True, events=True)\n"
        "    async for part in stream:\n"
        "        told = part.raw_response\n"
        "        if hasattr(told, 'model') and hasattr(told, 'done') and not told.warming_up:\n"
        "            print(json.dumps([told.done, told.total]), flush=True)\n"
        "    await llm.aclose()\n"
        "asyncio.run(main())"
    )
    files = hub.repositories[MODEL].iterdir()
    total = sum(path.stat().st_size for path in files if path.suffix != ".md")
    hub.hold_after = size - 1000
    with started(hub, code) as (loading, _, reading):
        told = [[0, total]]
        while not (told[-1][1] == total and 10_000_000 <= told[-1][0] < total):
            told.append(json.loads(reading.readline()))
        hub.go_on.set()
        told += map(json.loads, reading)
        assert loading.wait() == 0
    assert [total, total] in told
    assert told[-1][0] == told[-1][1] < size, "the weights, after the files"


def test_a_repository_without_a_model_is_refused(hub):
    (hub.repositories[MODEL] / "model.safetensors").unlink()
    done = run(hub, "pull", MODEL)
    assert done.returncode == ExitStatus.NO_MODEL
    assert "holds no model" in done.stderr
    assert done.stdout == ""


def test_a_model_is_downloaded_by_the_first_call_for_it(hub):
    done = generate(hub)
    assert done.stdout.strip() == "3", done.stderr


def test_a_missing_repository_is_reported(hub):
    done = run(hub, "pull", "acme/nothing")
    assert done.returncode == ExitStatus.NO_MODEL
    assert "no such model on the hub" in done.stderr
    assert "hint: " in done.stderr
    assert "Traceback" not in done.stderr
    assert "no such model on the hub" in generate(hub, "acme/nothing").stderr


@pytest.mark.parametrize("model", ["nothing", "a/b/c", "https://example.org/a/b", "a b/c"])
def test_the_hub_is_not_asked_for_an_invalid_id(hub, model):
    done = run(hub, "pull", model)
    assert done.returncode == ExitStatus.NO_MODEL
    assert "not a hub id of the form OWNER/NAME" in done.stderr
    assert hub.requests == []


def test_a_gated_model_needs_a_token(hub):
    hub.gated.add(MODEL)
    done = run(hub, "pull", MODEL)
    assert done.returncode == ExitStatus.NO_MODEL
    assert "the hub requires a token with access to it" in done.stderr
    assert "HF_TOKEN" in done.stderr
    assert run(hub, "pull", MODEL, HF_TOKEN="hf_wrong").returncode == ExitStatus.NO_MODEL
    assert run(hub, "pull", MODEL, HF_TOKEN=TOKEN).returncode == ExitStatus.OK


def test_a_cached_model_is_used_while_the_hub_cannot_be_reached(hub):
    nobody = {"HF_ENDPOINT": "http://127.0.0.1:9"}
    done = run_alone(hub, *GATEWAY, "pull", MODEL, **nobody)
    assert done.returncode == ExitStatus.NO_MODEL
    assert f"error: cannot get the model `{MODEL}`: the hub cannot be reached" in done.stderr
    assert "hint: check the network" in done.stderr
    assert run(hub, "pull", MODEL).returncode == ExitStatus.OK
    assert run_alone(hub, "-c", GENERATE % {"model": MODEL}, **nobody).stdout.strip() == "3"


def test_a_cache_that_cannot_be_written_is_no_fault_of_the_network(hub):
    hub.home.mkdir()
    (hub.home / "hub").write_text("where the cache should be")
    done = run(hub, "pull", MODEL)
    assert done.returncode == ExitStatus.NO_MODEL
    assert f"`{MODEL}` cannot be kept in {hub.home}/hub: " in done.stderr
    assert "hint: make room there" in done.stderr
    assert "the network" not in done.stderr


@pytest.mark.parametrize(
    ("error", "is_of_disk"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (PermissionError(errno.EACCES, "Permission denied", "/cache/hub"), True),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), False),
        (FileNotFoundError("it is not in the cache, and the hub cannot be reached"), False),
        (ValueError("no JSON"), False),
    ],
)
def test_a_disk_and_a_network_are_told_apart(error, is_of_disk):
    assert _is_of_disk(error) is is_of_disk


def test_damaged_files_are_named(hub):
    hub.damage = True
    done = run(hub, "pull", MODEL)
    assert done.returncode == ExitStatus.NO_MODEL
    assert "is damaged in the cache: " in done.stderr
    assert "model.safetensors" in done.stderr


def test_the_models_command_lists_the_cache_with_sizes(hub):
    empty = run(hub, "models", "--url", "http://127.0.0.1:9")
    assert (empty.returncode, empty.stdout) == (ExitStatus.OK, "")
    assert "no gateway at http://127.0.0.1:9" in empty.stderr
    run(hub, "pull", MODEL)
    (line,) = run(hub, "models", "--url", "http://127.0.0.1:9").stdout.splitlines()
    name, where, size, _ = line.split("\t")
    assert (name, where) == (MODEL, "in the cache")
    assert size.endswith("KiB")
    assert float(size.split()[0]) > 100


def test_an_adapter_is_downloaded_from_the_hub(hub, tmp_path):
    from tests.provider.models.test_library import write_adapter

    hub.repositories["acme/odd"] = write_adapter(tmp_path / "adapter", hub.repositories[MODEL])
    code = (
        "from provider import MLXProvider\n"
        f"llm = MLXProvider({{'model': 'base={MODEL}', 'adapter': ['odd=base:acme/odd'],"
        " 'max_tokens': 9, 'temperature': 0.0})\n"
        "import json\n"
        "said = [llm.generate('Hi', model=name).content for name in ('base', 'odd')]\n"
        "print(json.dumps(said)); llm.close()"
    )
    done = run_code(hub, code)
    base, odd = json.loads(done.stdout)
    assert base != odd
    assert "--adapter NAME=BASE:acme/odd" in run(hub, "pull", "acme/odd").stderr
