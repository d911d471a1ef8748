"""Makes the `generate` frame for a replica from a call of `generate_async`."""

from __future__ import annotations

import mimetypes
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gateway.protocol.frames import File, Generate
from provider.inputs.tools import normalise_tools
from provider.interface import (
    FileData,
    FileProcessingError,
    InvalidParameterError,
    ModelParameter,
)
from provider.options import OF_THE_CALLER, OPTIONS, GenerationOptions, parse_options

__all__ = ["frame_of"]

ID = "r"  # replaced by a client, which counts its generations


def frame_of(
    prompt: str,
    system_prompt: str | None,
    files: Sequence[Any],
    tools: Sequence[Any],
    given: Mapping[str, Any],
    defaults: Mapping[Any, Any],
) -> tuple[Generate, GenerationOptions]:
    """Return the frame of a call, and the call's checked options.

    `defaults` is the provider's configuration. Raises InvalidParameterError and
    FileProcessingError.
    """
    options = parse_options(given, defaults)
    if not isinstance(prompt, str):
        raise InvalidParameterError("prompt", prompt, "`prompt` must be a string")
    fields = {name: _wired(name, value) for name, value in _set(given, defaults).items()}
    if options.messages is not None:
        fields["messages"] = list(options.messages)
    frame = Generate(
        id=ID,
        prompt=prompt or None,
        system_prompt=system_prompt or defaults.get(ModelParameter.SYSTEM_PROMPT),
        files=[_file(one) for one in files] or None,
        tools=normalise_tools(tools) or None,
        **fields,
    )
    return frame, options


def _set(given: Mapping[str, Any], defaults: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the options that are set, by the call or by the configuration."""
    found = {}
    for name, option in OPTIONS.items():
        value = given.get(name)
        if value is None and option.configurable:
            value = defaults.get(name)
        if value is not None and name not in OF_THE_CALLER:
            found[name] = value
    return found


def _wired(name: str, value: Any) -> Any:
    """Return an option's value as the frame has it."""
    if name == "logit_bias":
        return {str(token): float(bias) for token, bias in value.items()}
    if isinstance(value, tuple):
        return list(value)
    return dict(value) if isinstance(value, Mapping) else value


def _file(given: Any) -> File:
    if isinstance(given, FileData):
        return File(name=given.name, mime=given.mime, data=given.data)
    path = Path(given)
    try:
        data = path.read_bytes()
    except OSError as error:
        said = f"`{path.name}` cannot be read: {error.strerror}"
        raise FileProcessingError(said, file_path=str(path)) from error
    return File(name=path.name, mime=mimetypes.guess_type(path.name)[0], data=data)
