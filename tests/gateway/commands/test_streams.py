"""Standard streams that are closed, or that can't hold every character."""

import io
import subprocess
import sys

import pytest

from gateway.commands.failure import ExitStatus
from gateway.commands.streams import usable
from tests.support.programs import ROOT
from tests.support.terminal import Terminal
from tests.support.timeouts import STARTING


def test_a_stream_that_is_closed_holds_nothing():
    with usable(None, "r") as closed:
        assert closed.read() == ""
    with usable(None, "w") as closed:
        closed.write("Foxes")


def test_what_a_stream_cannot_hold_is_replaced():
    written = io.BytesIO()
    stream = usable(io.TextIOWrapper(written, "ascii"), "w")
    stream.write("F\u00fcchse")
    stream.flush()
    assert written.getvalue() == b"F?chse"
    read = io.TextIOWrapper(io.BytesIO(b"F\xfcchse"), "utf-8")
    assert usable(read, "r").read() == "F\ufffdchse"


def test_a_stream_that_keeps_odd_bytes_goes_on_to():
    read = io.TextIOWrapper(io.BytesIO(b"F\xfcchse"), "utf-8", "surrogateescape")
    assert usable(read, "r").read() == "F\udcfcchse"
    assert usable(text := io.StringIO("Foxes"), "r") is text


def test_an_odd_byte_that_is_typed_ends_no_chat(scripted):
    terminal = Terminal("chat", "--url", scripted, "--max-tokens", "6")
    at = terminal.wait_for("you >")
    terminal.type(b"Foxes\xff\r")
    at = terminal.wait_for("Foxes\ufffd", terminal.wait_for("You said", at))
    terminal.wait_for("you >", at)
    terminal.type("/quit\r")
    assert terminal.close() == ExitStatus.OK


@pytest.mark.parametrize("closed", ["<&-", ">&-"])
def test_a_stream_that_a_shell_has_closed_is_no_traceback(scripted, closed):
    command = f'"$0" -m gateway run Foxes --max-tokens 3 --url "$1" {closed}'
    done = subprocess.run(
        ["sh", "-c", command, sys.executable, scripted],
        capture_output=True,
        text=True,
        timeout=STARTING,
        cwd=ROOT,
        check=False,
    )
    assert (done.returncode, done.stderr) == (ExitStatus.OK, "")
