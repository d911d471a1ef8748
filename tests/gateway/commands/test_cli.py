"""The command line as a user meets it: in processes of its own."""

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect as sync_connect

from gateway.commands.cli import app
from gateway.commands.failure import ExitStatus
from gateway.commands.setting_flags import SETTINGS
from tests.gateway.commands.conftest import lines_of, run
from tests.support.programs import GATEWAY, Program, interpreter
from tests.support.servers import Command, eventually, served
from tests.support.terminal import Terminal
from tests.support.timeouts import STARTING, TIMEOUT
from tests.support.tiny_models import LLAMA, write_model

ROOT = Path(__file__).parents[3]


DEAR = {  # packages that a command without them must not wait for
    "asyncio",
    "huggingface_hub",
    "mlx",
    "mlx_lm",
    "msgspec",
    "prometheus_client",
    "transformers",
    "websockets",
}
IMPORTED = """
import sys
from gateway.__main__ import main
try:
    main()
finally:
    print(*sys.modules, file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("command", "needed"),
    [
        ("--help", set()),
        ("config --port 1", set()),
        ("token new alice --file tokens.toml", set()),
        ("models --url http://127.0.0.1:9/", {"asyncio", "huggingface_hub"}),
        ("chat --url http://127.0.0.1:9/", {"asyncio", "msgspec", "websockets"}),
    ],
)
def test_a_command_imports_what_it_needs_and_nothing_else(command, needed, tmp_path):
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED, *command.split()],
        capture_output=True,
        text=True,
        timeout=STARTING,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.DEVNULL,
        check=False,
    )
    names = set(done.stderr.splitlines()[-1].split())
    assert "gateway.commands.cli" in names
    assert names & DEAR == needed
    assert "gateway.server.server" not in names


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_prints_one_address_and_ends_cleanly_on_a_signal(number):
    command = Command("--port", "0", "--provider", "scripted")
    address = command.wait_for_address()
    with urllib.request.urlopen(f"{address}readyz", timeout=TIMEOUT) as response:
        assert response.read() == b"ready\n"
    status, out, err = command.finish(number)
    assert (status, out) == (ExitStatus.OK, "")
    assert "Traceback" not in err


def catches_sigterm(process):
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    caught = next(line.split()[1] for line in lines if line.startswith("SigCgt"))
    return bool(int(caught, 16) & 1 << (signal.SIGTERM - 1))


def imports_mlx(process):
    return "libmlx" in Path(f"/proc/{process.pid}/maps").read_text()


LOOKS = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="looks into the process through /proc"
)


@LOOKS
@pytest.mark.parametrize("moment", [catches_sigterm, imports_mlx])
async def test_a_process_that_is_stopped_before_it_serves_says_so(moment):
    command = Command("--port", "0", fresh=True)
    await eventually(lambda: moment(command.process))
    status, out, err = command.finish(signal.SIGTERM)
    assert (status, out) == (ExitStatus.TERMINATED, "")
    assert err.splitlines() == ["stopped before it served"]


@LOOKS
async def test_a_terminal_has_its_cursor_again_after_a_process_that_was_stopped_early():
    terminal, theirs = pty.openpty()
    command = [sys.executable, *GATEWAY, "serve", "--port", "0"]
    process = interpreter(command, [theirs] * 3)
    os.close(theirs)
    await eventually(lambda: catches_sigterm(process))
    process.send_signal(signal.SIGTERM)
    assert process.wait(TIMEOUT) == ExitStatus.TERMINATED
    assert os.read(terminal, 4096).endswith(b"\x1b[?25hstopped before it served\r\n")
    os.close(terminal)


@contextmanager
def a_story(address):
    """Ask the scripted provider for its story over a socket that has its first words.

    It goes on once the socket acknowledges them, as `end_of` does.
    """
    with sync_connect(f"{address.replace('http', 'ws')}v1/stream") as socket:
        socket.recv()
        story = {"type": "generate", "id": "a", "prompt": "Foxes?", "max_tokens": 20, "window": 2}
        socket.send(json.dumps(story))
        while json.loads(socket.recv())["type"] != "chunk":
            pass
        yield socket


def end_of(socket):
    """Read a story to its end, and return how it ended.

    What was sent before a close is still read, but while it is, nothing can be acknowledged.
    """
    frame = {"seq": 1}
    while frame.get("type") != "done":
        with suppress(ConnectionClosed):
            socket.send(json.dumps({"type": "ack", "id": "a", "seq": frame["seq"]}))
        frame = json.loads(socket.recv())
    return frame["finish_reason"]


def test_a_signal_lets_answers_finish_and_readyz_says_so():
    command = Command("--port", "0", "--provider", "scripted")
    address = command.wait_for_address()
    with a_story(address) as socket:
        command.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + TIMEOUT
        while ready(address) != 503:
            assert time.monotonic() < deadline
        assert end_of(socket) == "length"
        with pytest.raises(ConnectionClosed, match="1012"):
            socket.recv()
    assert command.finish()[0] == ExitStatus.OK


@pytest.mark.parametrize("grace", ["0.2", "600"])
def test_the_end_is_bounded_by_its_grace_or_by_a_second_signal(grace):
    command = Command("--port", "0", "--provider", "scripted", "--shutdown-grace", grace)
    address = command.wait_for_address()
    with a_story(address) as socket:
        command.process.send_signal(signal.SIGTERM)
        if grace == "600":
            while ready(address) != 503:
                pass
            assert command.finish(signal.SIGTERM)[0] == ExitStatus.INTERRUPTED
        else:
            assert end_of(socket) == "cancelled"
            assert command.finish()[0] == ExitStatus.OK


def ready(address):
    try:
        with urllib.request.urlopen(f"{address}readyz", timeout=TIMEOUT) as response:
            return response.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_a_certificate_that_is_not_there_is_one_clear_line(tmp_path):
    missing = tmp_path / "cert.pem"
    status, _, err = Command("--provider", "scripted", "--tls-cert", str(missing)).finish()
    assert status == ExitStatus.USAGE
    assert err.startswith("error: ")
    assert "No such file" in err
    assert "Traceback" not in err


def test_a_terminal_is_greeted_in_lines_of_their_own_and_the_page_is_opened(tmp_path):
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opened\n')
    browser.chmod(0o700)
    environment = {"BROWSER": f"{browser} %s"}
    terminal = Terminal("serve", "--port", "0", "--open", env=environment)
    terminal.wait_for("stop")
    terminal.wait_for("a larger model")
    lines = lines_of(terminal)
    logged = [line for line in lines if " INFO " in line]
    assert any("loaded `embedded`" in line for line in logged)
    assert all(re.match(r"\d\d:\d\d:\d\d [A-Z]+ ", line) for line in logged), logged
    shown = {line[:10].strip(): line[10:] for line in lines}
    assert any(re.fullmatch(r"mlx-gateway \S+ is ready, after \d+\.\d s", line) for line in lines)
    assert shown["page"].startswith("http://127.0.0.1:")
    assert shown["model"].startswith("embedded, a small one")
    assert shown["device"].startswith(("CPU", "GPU"))
    assert shown["chat"] == f"mlx-gateway chat --url {shown['page']}"
    assert "Open http" not in terminal.text
    deadline = time.monotonic() + TIMEOUT
    while not (tmp_path / "opened").exists() or not (tmp_path / "opened").read_text():
        assert time.monotonic() < deadline
    assert (tmp_path / "opened").read_text() == f"{shown['page']}\n"
    terminal.type("\x03")
    assert terminal.close() == ExitStatus.OK


def test_ctrl_c_says_what_the_gateway_waits_for_and_the_second_one_ends_it():
    terminal = Terminal(
        "serve", "--provider", "scripted", "--port", "0", "--shutdown-grace", "60", split=True
    )
    terminal.wait_for("Ctrl-C")
    address = next(line[10:] for line in lines_of(terminal) if line.startswith("  page"))
    with a_story(address):
        at = len(terminal.screen)
        terminal.type("\x03")
        at = terminal.wait_for("INFO stopping: 1 answer is finishing, up to 60 s\r\n", at)
        terminal.wait_for("1 answer is finishing, up to 60 s; Ctrl-C again ends them", at)
        assert re.search(r"\^C\r\n.*INFO stopping", terminal.screen)
        terminal.type("\x03")
        assert terminal.close() == ExitStatus.INTERRUPTED
    assert terminal.screen.rindex("\x1b[?25h") > terminal.screen.rindex("\x1b[?25l")
    assert terminal.out() == f"Open {address}\n"


def test_a_socket_file_is_served_and_said(tmp_path):
    path = tmp_path / "gateway.sock"
    command = Command("--provider", "scripted", "--unix", str(path))
    assert command.stdout.readline() == f"Open unix:{path}\n"
    status, _, err = command.finish(signal.SIGTERM)
    assert (status, path.exists()) == (ExitStatus.OK, False)
    assert "Traceback" not in err


def test_a_busy_port_is_one_clear_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, out, err = Command("--port", str(port), "--provider", "scripted").finish()
    assert (status, out) == (ExitStatus.ADDRESS_IN_USE, "")
    assert err.startswith(f"error: port already in use: `127.0.0.1:{port}`\n\nhint: ")


def test_an_address_of_another_machine_is_one_clear_line():
    status, _, err = Command(
        "--host", "203.0.113.1", "--insecure", "--provider", "scripted"
    ).finish()
    assert status == ExitStatus.FAILED
    assert err.startswith("error: cannot listen on `203.0.113.1:8765`")


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (
            ["--model", "./no/such/model"],
            "cannot get the model `./no/such/model`: there is no such folder",
        ),
        (["./none.gguf"], "cannot get the model `./none.gguf`: there is no such file"),
    ],
)
def test_a_model_that_is_not_there_is_one_clear_line(model, said):
    status, out, err = Command("--port", "0", *model).finish()
    assert (status, out) == (ExitStatus.NO_MODEL, "")
    assert f"error: {said}" in err
    assert "hint: " in err
    assert "Traceback" not in err


def test_a_folder_that_is_no_model_is_one_clear_line(tmp_path):
    status, _, err = Command("--port", "0", "--model", str(tmp_path)).finish()
    assert status == ExitStatus.NO_MODEL
    assert "is not a model: it has no config.json" in err
    assert "Traceback" not in err


def test_a_broken_model_is_one_clear_line(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "no_such_type"}')
    (tmp_path / "model.safetensors").write_bytes(b"nonsense")
    status, _, err = Command("--port", "0", "--model", str(tmp_path)).finish()
    assert status == ExitStatus.NO_MODEL
    assert "cannot be loaded" in err
    assert "Traceback" not in err


def test_chat_answers_each_piped_line_on_standard_output(scripted):
    done = run("chat", "--url", scripted, "--max-tokens", "9", input="Foxes?\n\nBears?\n")
    assert done.returncode == 0
    assert done.stdout.count("You said: ") == 2
    assert "You said: Bears?" in done.stdout
    assert done.stderr == ""


def test_a_chat_brings_files_along(tmp_path, scripted, embedded):
    (tmp_path / "notes.md").write_text("Buy bread.")
    (tmp_path / "dot.png").write_bytes(b"\x89PNG")
    (tmp_path / "a.out").write_bytes(b"\x7fELF")
    notes, dot, binary = (str(tmp_path / name) for name in ("notes.md", "dot.png", "a.out"))
    brief = ("chat", "--url", scripted, "--max-tokens", "12")
    done = run(*brief, "--file", notes, input="What?\nWhy?\n")
    assert "You said: notes.md:\nBuy bread.\n\nWhat?" in done.stdout
    assert "You said: Why?" in done.stdout
    done = run("chat", "--url", embedded, "-f", dot, input="What is it?\n")
    assert (done.returncode, done.stdout.strip()) == (ExitStatus.FAILED, "")
    assert "error: " in done.stderr
    assert "image" in done.stderr
    for file, said in [(binary, "unknown type"), (str(tmp_path / "none.txt"), "cannot be read")]:
        wrong = run("chat", "--file", file)
        assert wrong.returncode == ExitStatus.USAGE
        assert said in wrong.stderr
        assert "hint: " in wrong.stderr


def answer_into(out, *arguments, typed):
    """Run a command that reads a text and writes into a descriptor; return status and errors."""
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as err:
        given.write(typed.encode())
        given.seek(0)
        program = Program([*GATEWAY, *arguments], [given.fileno(), out, err.fileno()])
        status = program.wait()
        err.seek(0)
        return status, err.read().decode()


COMMANDS = [("chat", "--max-tokens", "3"), ("run", "--max-tokens", "3")]


@pytest.mark.parametrize("command", COMMANDS)
def test_an_answer_that_nobody_reads_ends_the_program_quietly(scripted, command):
    reading, writing = os.pipe()
    os.close(reading)
    said = answer_into(writing, *command, "--url", scripted, typed="Foxes?\n")
    os.close(writing)
    assert said == (ExitStatus.FAILED, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize("command", COMMANDS)
def test_an_answer_on_a_full_disk_is_one_clear_line(scripted, command):
    with Path("/dev/full").open("w") as full:
        status, err = answer_into(full.fileno(), *command, "--url", scripted, typed="Foxes?\n")
    assert status == ExitStatus.FAILED
    assert err.startswith("error: the output can't be written: No space left on device\n\nhint: ")
    assert err.count("\n") == 3


def test_listening_to_other_machines_without_tokens_is_refused():
    status, _, err = Command("--host", "0.0.0.0", "--provider", "scripted").finish()
    assert status == ExitStatus.USAGE
    assert err.startswith("error: `0.0.0.0` can be reached from other machines, and there are no")


def test_a_new_token_is_printed_once_and_lets_in_after_a_hangup_signal(tmp_path):
    file = tmp_path / "tokens.toml"
    first = run("token", "new", "alice", "--file", str(file)).stdout.strip()
    assert first not in file.read_text()
    assert file.stat().st_mode & 0o077 == 0
    command = Command("--port", "0", "--provider", "scripted", "--token-file", str(file))
    try:
        address = command.wait_for_address()
        assert chat(address, first).returncode == ExitStatus.OK
        assert chat(address, "").returncode == ExitStatus.UNAUTHORIZED
        made = run("token", "new", "bob", "--file", str(file), "--days", "1")
        second = made.stdout.strip()
        assert chat(address, second).returncode == ExitStatus.UNAUTHORIZED
        command.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + TIMEOUT
        while chat(address, second).returncode != ExitStatus.OK:
            assert time.monotonic() < deadline
        file.write_text("[tokens.alice]\nsha256 = 'no'\n")
        command.process.send_signal(signal.SIGHUP)
        assert chat(address, first).returncode == ExitStatus.OK
        file.write_text("")
        command.process.send_signal(signal.SIGHUP)
        assert chat(address, "").returncode == ExitStatus.UNAUTHORIZED
    finally:
        command.finish(signal.SIGTERM)


@pytest.mark.slow("a process for each command that a newcomer tries")
def test_a_terminal_says_what_comes_next(tmp_path):
    def shown(*arguments):
        terminal = Terminal(*arguments, env={"HF_HOME": str(tmp_path)})
        status = terminal.close()
        return status, " ".join(terminal.text.split())

    file = tmp_path / "tokens.toml"
    status, said = shown("token", "new", "alice", "--file", str(file))
    assert (status, "shown this once" in said) == (ExitStatus.OK, True)
    assert "alice never" in shown("token", "list", "--file", str(file))[1]
    assert "already" in shown("token", "new", "alice", "--file", str(file))[1]
    assert "stop a running gateway" in shown("token", "revoke", "alice", "--file", str(file))[1]
    assert "no tokens in" in shown("token", "list", "--file", str(file))[1]
    assert "mlx-gateway pull" in shown("models", "--url", "http://127.0.0.1:9/")[1]
    assert "did you mean `serve`?" in shown("serv")[1]
    assert "Examples" in shown()[1]
    status, said = shown("serve", str(tmp_path / "none"), "--port", "0")
    assert (status, "there is no such folder" in said) == (ExitStatus.NO_MODEL, True)


def test_a_file_of_tokens_that_is_wrong_is_one_clear_line(tmp_path):
    file = tmp_path / "tokens.toml"
    missing = run("serve", "--token-file", str(file))
    assert missing.returncode == ExitStatus.USAGE
    assert missing.stderr.startswith(f"error: `{file}`: No such file")
    assert run("token", "new", "alice", "--file", str(file)).returncode == ExitStatus.OK
    file.write_text("[tokens.alice]\nsha256 = 'no'\n")
    wrong = run("serve", "--token-file", str(file))
    assert wrong.returncode == ExitStatus.USAGE
    assert "`tokens.alice`" in wrong.stderr


def chat(address, token):
    flags = ("--url", address, "--max-tokens", "1")
    return run("chat", *flags, input="Hi\n", MLX_GATEWAY_TOKEN=token)


def test_a_chat_sets_any_option_of_a_generation(scripted):
    done = run("chat", "--url", scripted, "-o", "max_tokens=3", input="Foxes?\n")
    assert done.stdout == "You said: Foxes?\n\n\n"
    given = ["--option", 'stop=["The end."]', "-o", "seed=7", "-o", "max_tokens=3"]
    assert run("chat", "--url", scripted, *given, input="Hi\n").returncode == ExitStatus.OK
    wrong = run("chat", "-o", "max_token=3")
    assert wrong.returncode == ExitStatus.USAGE
    assert wrong.stderr.startswith("error: `--option max_token=3`: no such option\n\nhint: did you")


def test_chat_without_a_gateway_is_one_clear_line():
    done = run("chat", "--url", "http://127.0.0.1:9", input="Hi\n")
    assert done.returncode == ExitStatus.NO_GATEWAY
    assert done.stderr.startswith("error: no gateway at `http://127.0.0.1:9`\n\nhint: ")


def test_an_unknown_option_is_a_usage_error():
    assert run("serve", "--colour", "red").returncode == ExitStatus.USAGE
    assert run("serve", "--log-level", "loud").returncode == ExitStatus.USAGE


def test_a_setting_may_come_from_a_file_a_variable_or_a_flag(tmp_path):
    file = tmp_path / "gateway.toml"
    file.write_text('port = 0\nmax_generations = 7\nlog_level = "warning"\n')
    printed = run("config", "--config", str(file), "--max-batch", "4")
    assert printed.returncode == ExitStatus.OK
    assert f"max_generations = 7  # {file}\n" in printed.stdout
    assert "max_batch = 4  # --max-batch\n" in printed.stdout
    assert "max_queue = 1024  # default\n" in printed.stdout
    assert "# idle_unload = …  # not set; a number\n" in printed.stdout
    assert 'max_frame_bytes = "8MiB"  # default\n' in printed.stdout
    environment = {**os.environ, "MLX_GATEWAY_CONFIG": str(file)}
    command = Command("--provider", "scripted", env=environment)
    assert command.wait_for_address() != "http://127.0.0.1:8765/"
    assert command.finish(signal.SIGTERM) == (ExitStatus.OK, "", "")


def test_a_setting_that_is_wrong_is_one_clear_line(tmp_path):
    file = tmp_path / "gateway.toml"
    file.write_text("prot = 0\n")
    wrong = run("serve", "--config", str(file))
    assert wrong.returncode == ExitStatus.USAGE
    assert wrong.stderr.startswith(
        f"error: `prot` in `{file}` is not a setting; did you mean `port`?"
    )
    wrong = run("serve", "--port", "70000")
    assert wrong.returncode == ExitStatus.USAGE
    assert wrong.stderr.startswith("error: `--port` must be at most 65535\n\nhint: ")
    wrong = run("serve", "--config", str(tmp_path / "none.toml"))
    assert wrong.returncode == ExitStatus.USAGE
    assert wrong.stderr.startswith(f"error: `{tmp_path / 'none.toml'}`: No such file")


def test_help_begins_with_examples_and_has_the_flags_that_people_use():
    shown = run("serve", "-h", COLUMNS="80").stdout
    assert shown.index("Examples") < shown.index("mlx-gateway serve --open") < shown.index("MODEL ")
    flags = re.findall(r"^│ (--[a-z-]+)", shown, re.MULTILINE)
    assert 12 <= len(flags) <= 20
    assert {"--open", "--port", "--help-all"} <= {*flags}
    assert "--max-connections" not in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_help_without_a_command_begins_with_examples():
    shown = run("-h", COLUMNS="80").stdout
    assert shown.index("mlx-gateway serve --open") < shown.index("mlx-gateway chat")
    assert shown.index("mlx-gateway chat") < shown.index("--version")
    assert max(map(len, shown.splitlines())) <= 80


def test_help_shows_every_setting_in_its_group():
    shown = run("serve", "--help-all", COLUMNS="80").stdout
    for setting in SETTINGS:
        assert setting.flag in shown
        assert setting.group in shown


def test_the_version_is_data():
    assert run("--version").stdout.startswith("mlx-gateway ")


def test_ctrl_c_stops_the_answer_and_not_the_program(scripted):
    terminal = Terminal("chat", "--url", scripted)
    terminal.wait_for("you >")
    terminal.type("Foxes?\n")
    terminal.wait_for("Sentence 1 ")
    terminal.type("\x03")
    at = terminal.wait_for("stopped by you")
    assert "The end." not in terminal.screen
    at = terminal.wait_for("you >", at)
    terminal.type("Bears?\n")
    at = terminal.wait_for("You said: Bears?", at)
    at = terminal.wait_for("prompt 1", terminal.wait_for("The end.", at))
    terminal.wait_for("you >", at)  # else the end of the input is typed into nothing
    terminal.type("\x04")
    assert terminal.close() == 0


def test_a_terminal_is_as_before_after_a_chat_that_was_terminated(scripted):
    terminal = Terminal("chat", "--url", scripted)
    before = terminal.modes()
    at = terminal.wait_for("you >")
    terminal.type("Foxes?\r")
    terminal.wait_for("Sentence 1 ", at)
    assert terminal.modes() != before
    terminal.process.send_signal(signal.SIGTERM)
    assert terminal.close() == ExitStatus.TERMINATED
    assert terminal.last_modes == before
    # Another thread may have drawn once more before the end; the cursor is there all the same.
    assert "\x1b[?25h" in terminal.screen.rpartition("\x1b[?25l")[2]


@pytest.mark.parametrize(
    ("typed", "completed"), [("ser", "serve"), ("serve --max-dep", "--max-depth")]
)
def test_a_shell_completes_commands_and_every_flag(typed, completed):
    words = f"mlx-gateway {typed}"
    done = run(
        _MLX_GATEWAY_COMPLETE="complete_bash",
        COMP_WORDS=words,
        COMP_CWORD=str(words.count(" ")),
    )
    assert done.stdout.split() == [completed]


TOOLS = '''
def get_weather(city: str) -> dict:
    """Tell the weather in a city.

    Args:
        city: Which one.
    """
    return {"sky": "rainy", "temperature": 17}
'''


def test_a_chat_calls_the_functions_of_a_file(tmp_path, embedded):
    (tmp_path / "tools.py").write_text(TOOLS)
    arguments = ("--url", embedded, "--temperature", "0", "--tools", str(tmp_path / "tools.py"))
    done = run("chat", *arguments, input="What is the weather in Tarvola?\n")
    assert done.returncode == ExitStatus.OK
    assert "rainy" in done.stdout
    assert done.stderr.split("\n")[:2] == [
        'get_weather {"city": "Tarvola"}',
        '  → {"sky": "rainy", "temperature": 17}',
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [(None, "No such file"), ("1 /", "SyntaxError: "), ("1 / 0", "ZeroDivisionError: ")],
)
def test_a_file_of_tools_that_will_not_do_is_one_clear_line(tmp_path, text, said):
    file = tmp_path / "tools.py"
    if text is not None:
        file.write_text(text)
    done = run("chat", "--tools", str(file))
    assert done.returncode == ExitStatus.USAGE
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_the_user_answers_a_tool_that_is_only_defined(embedded):
    tool = json.dumps(
        {
            "name": "get_weather",
            "description": "Tell the weather in a city.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        }
    )
    terminal = Terminal("chat", "--url", embedded, "--temperature", "0", "-o", f"tools={tool}")
    terminal.wait_for("you >")
    terminal.type("What is the weather in Tarvola?\n")
    terminal.wait_for("get_weather returns >")
    terminal.type('{"sky": "foggy", "temperature": 3}\n')
    at = terminal.wait_for("foggy", terminal.wait_for("→"))
    terminal.wait_for("you >", at)
    terminal.type("\x04")
    assert terminal.close() == 0
    assert "It is foggy in Tarvola, with 3 degrees." in terminal.screen


def test_ctrl_c_at_a_tool_leaves_the_next_line_to_the_chat(embedded):
    terminal = Terminal(
        "chat", "--url", embedded, "--temperature", "0", "-o", 'tools={"name": "get_weather"}'
    )
    terminal.wait_for("you >")
    terminal.type("What is the weather in Tarvola?\n")
    at = terminal.wait_for("get_weather returns >")
    terminal.type("\x03")
    at = terminal.wait_for("you >", terminal.wait_for("stopped by you", at))
    terminal.type("Count from 12 to 19\n")
    at = terminal.wait_for("12, 13, 14, 15", at)
    at = terminal.wait_for("you >", at)
    terminal.type("\x1b[A\x7f8\n")  # the line before, with another end
    at = terminal.wait_for("16, 17, 18.", at)
    terminal.wait_for("you >", at)
    terminal.type("\x04")
    assert terminal.close() == 0


def test_thinking_and_the_answer_have_lines_of_their_own(embedded):
    flags = ("--temperature", "0", "-o", "enable_thinking=true")
    done = run("chat", "--url", embedded, *flags, input="Count from 3 to 9\n")
    assert done.stdout.startswith("3, 4, 5")
    assert done.stderr.endswith(".\n")


def test_a_script_is_told_that_something_was_not_answered(embedded):
    done = run("chat", "--url", embedded, "-o", "top_p=7", input="Hi\n")
    assert done.returncode == ExitStatus.FAILED
    assert "`$.top_p`: must be in (0, 1], not 7.0\n" in done.stderr


def test_several_models_are_served_by_name_and_listed(tmp_path):
    other = write_model(tmp_path / "other", LLAMA)
    models = ("--model", "story=embedded", "--model", f"random={other}")
    with served(*models) as address:
        rows = [line.split("\t") for line in run("models", "--url", address).stdout.splitlines()]
        assert rows[0][:2] == ["story", "served, loaded"]
        assert rows[1][:2] == ["random", "served, loaded on demand"]
        done = run(
            "chat", "--url", address, "-o", "model=random", "--max-tokens", "3", input="Hi\n"
        )
        assert done.returncode == ExitStatus.OK
        rows = run("models", "--url", address).stdout.splitlines()
        assert rows[1].startswith("random\tserved, loaded\t\t2048 tokens")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--adapter", "odd"], "`adapter` must be NAME=BASE:FOLDER, not `odd`"),
        (["--adapter", "odd=base:x"], "the base `base` is not served; `embedded` is"),
        (["--pin", "nobody"], "`nobody` is not served"),
        (["--model", "a=embedded", "--model", "a=x"], "two models are named `a`"),
    ],
)
def test_models_that_do_not_go_together_are_one_clear_line(flags, said):
    status, _, err = Command("--port", "0", *flags).finish()
    assert status == ExitStatus.USAGE
    assert said in err
    assert "Traceback" not in err


def test_what_cannot_be_downloaded_is_said(capsys):
    with pytest.raises(SystemExit) as caught:
        app(["pull", "no/such/id"])
    assert caught.value.code == ExitStatus.NO_MODEL
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: cannot get the model `no/such/id`: not a hub id of the form")
    assert "hint: pass OWNER/NAME, such as `mlx-community/" in said.err


def test_settings_on_a_terminal_come_with_what_to_do_with_them():
    terminal = Terminal("config")
    assert terminal.close() == ExitStatus.OK
    said = " ".join(terminal.text.split())
    assert "`mlx-gateway config > gateway.toml`" in said
    assert "`mlx-gateway serve --config gateway.toml`" in said
