"""Wrong words on the command line, as an error like any other: one line, and what to do."""

from __future__ import annotations

from typing import Any

from gateway.commands.failure import ExitStatus, Failure

__all__ = ["usage_failure"]


def usage_failure(error: Any) -> Failure:
    """Return what a user is told of a usage error of the library that reads the command line."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "mlx-gateway"
    hint = f"`{command} -h` shows what it takes"
    option = getattr(error, "option_name", None)
    near = [f"`{name}`" for name in getattr(error, "possibilities", None) or ()]
    if option and hasattr(error, "possibilities"):
        said = f"`{option}`: no such option of `{command}`"
        hint = f"did you mean {' or '.join(near)}? {hint}" if near else hint
        return Failure(said, hint, ExitStatus.USAGE)
    message = str(error.format_message()).rstrip(".").replace("'", "`").replace("(s)", "")
    said, _, suggested = message.partition(". Did you mean ")
    if suggested:
        hint = f"did you mean {suggested} {hint}"
    return Failure(f"{said[:1].lower()}{said[1:]}", hint, ExitStatus.USAGE)
