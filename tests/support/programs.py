"""Python programs in processes of their own, forked from one that has imported what they need.

Each has its own process id, environment, standard streams, signals and, if asked, terminal, and it
ends as an interpreter does. What it doesn't have is the imports: mlx, transformers and the rest
take seconds of processor time, and here they are paid once. Modules that read the environment or
the terminal when they are imported are left to the program. Where a fork isn't safe (macOS), and
where coverage is measured, each program is a new interpreter.
"""

import atexit
import fcntl
import functools
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import types
from contextlib import suppress
from pathlib import Path

from tests.support.timeouts import TIMEOUT

IMPORTS = (
    "provider.mlx_provider",
    "provider.scripted",
    "gateway.server.server",
    "gateway.client.blocking",
    "gateway.client.tool_loop",
    "gateway.configuration.sources",
    "pydantic.type_adapter",  # which typer's types come with
    "readline",
    "rich.progress",
    "rich.table",
    "typer.rich_utils",
)
FORKS = sys.platform == "linux"
MEASURED = "MEASURED_FOR"  # the variable that has programs measured from their first import on
UNFUSED = "MLX_DISABLE_COMPILE"  # the variable that keeps mlx from fusing operations
ROOT = Path(__file__).parent.parent.parent
NUMBER = struct.Struct("i")
REQUEST_BYTES = 1 << 20
GATEWAY = ("-m", "gateway")


def measured_environment():
    """Return the variables that a program needs to be measured; none if nothing is."""
    if MEASURED not in os.environ:
        return {}
    return {name: os.environ[name] for name in (MEASURED, "MEASURED_INTO", "PYTHONPATH")}


def interpreter(command, streams, **options):
    """Start a command in a process of its own, with these three streams."""
    stdin, stdout, stderr = streams
    return subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=stderr, **options)


class ForkServer:
    """A process that imports once and forks a program for each request.

    What its environment holds is in force while it imports.
    """

    def __init__(self, environment):
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                env=environment,
                cwd=ROOT,
                pass_fds=[theirs.fileno()],
            )

    def fork(self, request, streams):
        """Start a program, and return its process id and what its exit status is read from."""
        report, theirs = os.pipe()
        try:
            socket.send_fds(self._control, [json.dumps(request).encode()], [*streams, theirs])
        finally:
            os.close(theirs)
        return NUMBER.unpack(os.read(report, NUMBER.size))[0], report

    def close(self):
        self._control.close()
        self._process.wait(TIMEOUT)


@functools.cache
def common_server():
    """Return the fork server of programs that bring none; they fuse operations, as users' do."""
    server = ForkServer({name: os.environ[name] for name in os.environ if name != UNFUSED})
    atexit.register(server.close)
    return server


class Program:
    """One running program: `arguments` are what `python` would get, `streams` three descriptors.

    With `terminal`, its standard input is the terminal that controls it.
    """

    def __init__(self, arguments, streams, *, env=None, cwd=None, terminal=False, server=None):
        environment = dict(os.environ if env is None else env)
        self.returncode = self._process = self._report = None
        if not FORKS or MEASURED in environment:
            self._process = interpreter(
                [sys.executable, *arguments],
                streams,
                env=environment,
                cwd=cwd,
                start_new_session=terminal,
                preexec_fn=_take_terminal if terminal else None,
            )
            self.pid = self._process.pid
            return
        request = {
            "arguments": [str(argument) for argument in arguments],
            "environment": environment,
            "folder": str(cwd or Path.cwd()),
            "terminal": terminal,
        }
        with Path(os.devnull).open("r+b") as nothing:
            given = [nothing.fileno() if one == subprocess.DEVNULL else one for one in streams]
            self.pid, self._report = (server or common_server()).fork(request, given)

    def send_signal(self, number):
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it ends just now
                os.kill(self.pid, number)

    def poll(self):
        """Return the exit status as Popen has it, None while the program runs."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout=TIMEOUT):
        """Return the exit status as Popen has it. Raises TimeoutExpired."""
        if self._process is not None:
            self.returncode = self._process.wait(timeout)
        elif self.returncode is None:
            if not select.select([self._report], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            self.returncode = NUMBER.unpack(os.read(self._report, NUMBER.size))[0]
            os.close(self._report)
        return self.returncode


def run(*arguments, input="", timeout=TIMEOUT * 6, **options):  # noqa: A002 - as subprocess has it
    """Run a program to its end, and return what `subprocess.run` would."""
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out:
        with tempfile.TemporaryFile() as err:
            given.write(input.encode())
            given.seek(0)
            program = Program(arguments, [given.fileno(), out.fileno(), err.fileno()], **options)
            try:
                status = program.wait(timeout)
            except subprocess.TimeoutExpired:
                program.send_signal(signal.SIGKILL)
                raise
            for file in (out, err):
                file.seek(0)
            said = [file.read().decode() for file in (out, err)]
    return subprocess.CompletedProcess(arguments, status, *said)


def _serve(control):
    """Fork for each request; return the request in the process that is to become its program."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the tests, which end this
    signal.signal(signal.SIGCHLD, _reap)
    while True:
        text, descriptors, _, _ = socket.recv_fds(control, REQUEST_BYTES, 4)
        if not text:
            sys.exit()
        if os.fork() == 0:
            control.close()
            _report_end(descriptors)
            return json.loads(text), descriptors[:3]
        for descriptor in descriptors:
            os.close(descriptor)


def _reap(number, frame):
    """Take the ends of the forks, so that their processor time counts as the tests'."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _report_end(descriptors):
    """Fork once more: the parent reports how the child ends, and the child returns."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    report = descriptors[3]
    child = os.fork()
    if child == 0:
        os.close(report)
        return
    for descriptor in descriptors[:3]:
        os.close(descriptor)
    os.write(report, NUMBER.pack(child))
    _, status = os.waitpid(child, 0)
    os.write(report, NUMBER.pack(os.waitstatus_to_exitcode(status)))
    os._exit(0)


def _become(request, descriptors):
    """Take on the program's environment, folder, streams and signals, and run it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    if request["terminal"]:
        os.setsid()
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    if request["terminal"]:
        _take_terminal()
    sys.stdin = sys.__stdin__ = os.fdopen(0, closefd=False, encoding="utf-8")
    sys.stdout = sys.__stdout__ = os.fdopen(1, "w", closefd=False, encoding="utf-8")
    sys.stderr = sys.__stderr__ = os.fdopen(
        2, "w", 1, closefd=False, encoding="utf-8", errors="backslashreplace"
    )
    kind, what, *arguments = request["arguments"]
    sys.argv = [kind, *arguments]
    if kind == "-c":
        sys.modules["__main__"] = module = types.ModuleType("__main__")  # as long as the process
        exec(compile(what, "<string>", "exec"), vars(module))
    else:
        runpy.run_module(what, run_name="__main__", alter_sys=True)


def _take_terminal():
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def main():
    control = socket.socket(fileno=int(sys.argv[1]))
    for name in IMPORTS:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # a program that ends goes through what it has made, not through all the imports
    _become(*_serve(control))


if __name__ == "__main__":
    main()
