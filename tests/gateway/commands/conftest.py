"""Gateways in processes of their own, which the command line talks to, and its programs."""

import os

import pytest

from tests.support import programs
from tests.support.programs import GATEWAY
from tests.support.servers import served


@pytest.fixture(scope="session")
def scripted():
    """The address of a gateway with the scripted provider, for tests that only talk to it."""
    with served("--provider", "scripted") as address:
        yield address


@pytest.fixture(scope="session")
def embedded():
    """The address of a gateway with the embedded model, for tests that only talk to it."""
    with served() as address:
        yield address


def run(*arguments, **variables):
    said = variables.pop("input", "")
    environment = {**os.environ, "NO_COLOR": "1", **variables}
    return programs.run(*GATEWAY, *arguments, input=said, env=environment)


def lines_of(terminal):
    """Return the lines of a terminal without what later ones were written over."""
    return [line.rpartition("\r")[2].rstrip() for line in terminal.text.split("\r\n")]
