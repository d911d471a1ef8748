"""How a command fails: an error line, a hint and an exit status."""

from __future__ import annotations

from enum import IntEnum

from gateway.protocol.address import Address, address_of

__all__ = ["STOPPED_EARLY", "ExitStatus", "Failure", "address_given"]

STOPPED_EARLY = "stopped before it served"


class ExitStatus(IntEnum):
    """The exit status of the program."""

    OK = 0
    FAILED = 1
    USAGE = 2
    ADDRESS_IN_USE = 3
    NO_MODEL = 4
    NO_GATEWAY = 5
    UNAUTHORIZED = 6
    INTERRUPTED = 130  # 128 plus the number of the signal, as shells do
    TERMINATED = 143


class Failure(Exception):  # noqa: N818 - what the user is told, not a fault of the code
    """An error that ends the program: its message, a hint for the user, and the exit status."""

    def __init__(self, message: str, hint: str, status: ExitStatus):
        super().__init__(message)
        self.hint = hint
        self.status = status


def address_given(url: str) -> Address:
    """Return the address of a gateway that the user has given. Raises Failure."""
    try:
        return address_of(url)
    except ValueError as error:
        hint = "pass the address that `mlx-gateway serve` prints"
        raise Failure(str(error), hint, ExitStatus.USAGE) from None
