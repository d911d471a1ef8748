"""The process of `serve`: start a provider and a gateway, handle signals, stop both.

The first SIGINT or SIGTERM stops it in order, a second one at once; SIGHUP reloads the tokens and
the certificate. SIGUSR1, which a lost parent leaves (the kernel sends it for each of its threads),
stops it in order however often it comes.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import os
import signal
import sys
import threading
import time
import webbrowser
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from gateway.commands.banner import banner, finishing
from gateway.commands.failure import STOPPED_EARLY, ExitStatus, Failure
from gateway.commands.provider_start import load_failure, open_provider, progress
from gateway.commands.shards import attend, follow, join_ranks
from gateway.configuration import sources as configuration
from gateway.configuration.settings import Settings
from gateway.configuration.sources import Value
from gateway.server import logs
from gateway.server.accepting import tell_rarely_of_accept
from gateway.server.descriptors import raise_limit
from gateway.server.origins import is_loopback
from gateway.server.server import Gateway
from gateway.server.tokens import BadTokens, Tokens, from_environment, from_file, text_of_file
from provider.interface import AbstractLLMError
from provider.wording import counted

__all__ = ["Service", "serve"]

log = logging.getLogger(__name__)

DEFAULTS = Settings()
EXIT_S = 5.0  # seconds that loading has to stop
TOLD_EVERY_S = 0.2  # between looks at the answers that finish


def serve(
    values: Mapping[str, Value],
    kind: str,
    errors: Console,
    *,
    began: float | None = None,
    browse: bool = False,
) -> ExitStatus:
    """Serve until a signal stops the gateway; progress is shown on `errors`. Raises Failure.

    `began` is when the process did, by the monotonic clock; with `browse`, the page is opened.
    """
    logs.set_up(values["log_level"].value, values["log_format"].value)
    settings = configuration.build(Settings, values)
    if settings.as_replica:
        settings = settings.of_a_replica()
    tokens = _tokens_at_start(values["token_file"].value)
    if not (tokens or values["insecure"].value):
        _refuse_if_open(settings)
    if browse and settings.unix is not None:
        hint = "serve on a port instead of `--unix`"
        raise Failure("`--open` finds no page on a socket file", hint, ExitStatus.USAGE)
    raise_limit(settings.max_connections)
    with errors.status("starting mlx"):
        rank = join_ranks(values)
        if rank is None or (followed := follow(rank, values)) is None:
            provider = open_provider(kind, values, rank)
        else:
            return followed
    # All that is imported by now stays. Left to the garbage collector, each full collection would
    # walk it, and stop all threads for 50 ms. A model is not among it, since it may be unloaded.
    gc.collect()
    gc.freeze()
    try:
        gateway = Gateway(provider, settings, tokens)
    except (ValueError, OSError) as error:
        hint = "see the Server and Access settings in `mlx-gateway serve --help-all`"
        raise Failure(str(error), hint, ExitStatus.USAGE) from error
    service = Service(gateway, values, errors, began=began, browse=browse, rank=rank)
    return asyncio.run(service.run())


def _refuse_if_open(settings: Settings) -> None:
    """Raise Failure if other machines reach the gateway, which asks for no token."""
    if settings.unix is None and not is_loopback(settings.host):
        raise Failure(
            f"`{settings.host}` can be reached from other machines, and there are no tokens",
            "make a token with `mlx-gateway token new NAME` and pass `--token-file tokens.toml`, "
            "or pass `--insecure`",
            ExitStatus.USAGE,
        )


class Service:
    """One gateway and its provider, from start to stop; `rank` is set for a model in parts."""

    def __init__(
        self,
        gateway: Gateway,
        values: Mapping[str, Value],
        errors: Console,
        *,
        began: float | None = None,
        browse: bool = False,
        rank: Any = None,
    ):
        self._gateway = gateway
        self._rank = rank
        self._began = time.monotonic() if began is None else began
        self._browse = browse
        model = next(iter(values["model"].value), "the model in the package")
        fleet = values["replica"].value or values["replicas"].value
        self._awaited = "waiting for a replica" if fleet else f"loading {model}"
        self._token_file = values["token_file"].value
        self._errors = errors
        self._stop = asyncio.Event()
        self._signal = signal.SIGTERM  # the last signal, or the one that `_stop` stands for
        self._signals = 0

    async def run(self) -> ExitStatus:
        """Listen, load the first model, print the address, wait for a signal, and stop."""
        self._handle_signals()
        tell_rarely_of_accept(asyncio.get_running_loop())
        if self._rank is not None:
            attend(self._rank, partial(_call_in, asyncio.get_running_loop(), self._stop.set))
        try:
            await self._gateway.__aenter__()
        except OSError as error:
            raise _address_failure(self._gateway.settings, error) from error
        try:
            with self._errors.status(self._awaited) as status:
                self._gateway.provider.watch_loading(
                    lambda event: status.update(progress(self._awaited, event))
                )
                await self._load_or_stop()
            self._handle_signals()  # again, because Ray takes them when it starts
            if self._stop.is_set():
                self._errors.print(STOPPED_EARLY)
                by_user = self._signal is signal.SIGINT
                stopped = ExitStatus.INTERRUPTED if by_user else ExitStatus.TERMINATED
                if self._rank is not None:
                    _exit_soon(stopped)
                return stopped
            self._greet()
            opening = asyncio.ensure_future(self._open_page())
            await self._stop.wait()
            opening.cancel()
            await self._drain()
        finally:
            await self._gateway.close()
            await self._gateway.provider.aclose()
        return ExitStatus.OK

    def _greet(self) -> None:
        """Say where the gateway is: to a user on a terminal, to a program on standard output."""
        gateway, settings = self._gateway, self._gateway.settings
        if self._errors.is_terminal:
            usual = gateway.url == f"http://{DEFAULTS.host}:{DEFAULTS.port}/"
            seconds = time.monotonic() - self._began
            provider = gateway.provider
            said = banner(gateway.url, seconds, provider.models(), provider.device(), usual=usual)
            self._errors.print(said)
        if not (self._errors.is_terminal and sys.stdout.isatty()):
            print(f"Open {gateway.url}", flush=True)  # noqa: T201 - this is the data
        if settings.dev:
            self._errors.print("pages of every origin on this machine may connect (`--dev`)")

    async def _open_page(self) -> None:
        """Open the page in a browser, if that was asked for; a browser may take its time."""
        if self._browse:
            url = self._gateway.url.replace("//0.0.0.0:", "//127.0.0.1:").replace("[::]", "[::1]")
            if not await asyncio.to_thread(webbrowser.open, url):
                self._errors.print(f"no browser could be started; open {url} yourself")

    async def _drain(self) -> None:
        """Let answers finish, and say how many still do and for how long."""
        gateway, loop = self._gateway, asyncio.get_running_loop()
        end = loop.time() + gateway.settings.shutdown_grace_s
        if self._signal is signal.SIGINT and self._errors.is_terminal:
            self._errors.print()  # the terminal has written ^C
        if gateway.live:
            said = finishing(gateway.live, gateway.settings.shutdown_grace_s)
            log.info("stopping: %s", said.partition(";")[0])
        draining = asyncio.ensure_future(gateway.drain())
        with self._errors.status(finishing(gateway.live, end - loop.time())) as status:
            while not draining.done():
                await asyncio.wait({draining}, timeout=TOLD_EVERY_S)
                status.update(finishing(gateway.live, end - loop.time()))
        await draining

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._end, number)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        loop.add_signal_handler(signal.SIGUSR1, self._stop.set)

    def _end(self, number: signal.Signals) -> None:
        self._signals += 1
        if self._signals > 1:
            self._errors.show_cursor()
            os._exit(ExitStatus.INTERRUPTED)
        self._signal = number
        self._stop.set()

    def _reload(self) -> None:
        """Read tokens and certificate again; keep the old ones if that fails."""
        try:
            self._gateway.tokens = self._tokens()
            self._gateway.renew_certificate()
        except (BadTokens, OSError) as error:
            log.error("reload failed, old tokens or certificate stay in use: %s", error)  # noqa: TRY400 - said, not traced
        else:
            accepted = counted(len(self._gateway.tokens), "token")
            log.info("reloaded the certificate, and %s in all", accepted)

    def _tokens(self) -> Tokens:
        tokens = _read_tokens(self._token_file)
        if self._gateway.tokens and not tokens:
            raise BadTokens("the new list is empty, which would let everybody in")
        return tokens

    async def _load_or_stop(self) -> None:
        loading = asyncio.ensure_future(self._gateway.provider.load())
        stopping = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait({loading, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not loading.done():
            loading.cancel()
            return
        try:
            loading.result()
        except AbstractLLMError as error:
            raise load_failure(error) from error


def _call_in(loop: asyncio.AbstractEventLoop, call: Callable[[], object]) -> None:
    with suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(call)


def _exit_soon(status: ExitStatus) -> None:
    """End the process in a while, although it may wait for other ranks that load their parts."""
    ending = threading.Timer(EXIT_S, os._exit, (status,))
    ending.daemon = True
    ending.start()


def _tokens_at_start(token_file: str | None) -> Tokens:
    try:
        return _read_tokens(token_file)
    except BadTokens as error:
        hint = "repair the entry, or make a new one with `mlx-gateway token new NAME`"
        raise Failure(str(error), hint, ExitStatus.USAGE) from error
    except OSError as error:
        hint = "make the file with `mlx-gateway token new NAME --file FILE`"
        raise Failure(f"`{token_file}`: {error.strerror}", hint, ExitStatus.USAGE) from error


def _read_tokens(token_file: str | None) -> Tokens:
    """Return the tokens of the file and of the environment. Raises BadTokens, OSError."""
    variable = configuration.TOKENS_VARIABLE
    found = from_environment(os.environ.get(variable, ""), variable)
    if token_file is not None:
        text = text_of_file(Path(token_file).read_bytes(), token_file)
        found += from_file(text, token_file)
    return Tokens(found)


def _address_failure(settings: Settings, error: OSError) -> Failure:
    if settings.unix is not None:
        hint = "pass `--unix` a path in a folder that you can write to"
        said = f"cannot listen on `{settings.unix}`: {_reason(error)}"
        return Failure(said, hint, ExitStatus.FAILED)
    address = f"`{settings.host}:{settings.port}`"
    if error.errno == errno.EADDRINUSE:
        hint = "stop the other process, or pass `--port 0` to take a free one"
        return Failure(f"port already in use: {address}", hint, ExitStatus.ADDRESS_IN_USE)
    hint = "pass `--host` an address of this machine, and `--port` a port that you may use"
    return Failure(f"cannot listen on {address}: {_reason(error)}", hint, ExitStatus.FAILED)


def _reason(error: OSError) -> str:
    """Return what the system says; asyncio's own text repeats the address as a tuple."""
    number = error.errno or 0
    return os.strerror(number) if number > 0 else error.strerror or str(error)
