"""Opens the provider of a command, loads its model, and says what is wrong if that fails."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from gateway.commands.failure import ExitStatus, Failure
from gateway.configuration.sources import PREFIX, TOKEN_VARIABLE, Value
from provider.interface import (
    AbstractLLMError,
    HubUnreachableError,
    InvalidParameterError,
    MemoryExceededError,
    ModelLoading,
    ModelLoadingError,
    ModelNotFoundError,
    ModelStorageError,
)
from provider.settings import EngineSettings

__all__ = ["EXAMPLE", "ROOM", "load_failure", "missing_model", "open_provider", "progress"]

EXAMPLE = "mlx-community/Qwen3-0.6B-4bit"  # a model that most machines can serve
ROOM = "make room there, or set the variable `HF_HOME` to a folder on another disk"
OF_MODELS = ("model", "adapter", "pin", "allow_any_model", "idle_unload_s", "draft_model")


def open_provider(kind: str, values: Mapping[str, Value], rank: Any = None) -> Any:
    """Return a provider of this kind, `mlx` or `scripted`, which loads nothing yet.

    `rank` is what `join_ranks` returns for rank 0, None where a model has no parts. Raises Failure
    for settings that can't be used together.
    """
    if values["replicas"].value:
        return _open_ray(kind, values)
    if kind == "scripted":
        from provider.scripted import ScriptedProvider  # noqa: PLC0415

        return ScriptedProvider()
    if values["replica"].value:
        return _open_replicas(values)
    # Imported here because mlx takes a second to import, and the other commands don't need it.
    from provider import MLXProvider  # noqa: PLC0415

    names = [*OF_MODELS]
    names += [field.name for field in fields(EngineSettings)]
    given = {name.removesuffix("_s"): values[name].value for name in names}
    if rank is not None:
        from provider.models.sharded import Sharded  # noqa: PLC0415

        given["shard"] = Sharded(values["shard"].value, rank)
    try:
        return MLXProvider({name: value for name, value in given.items() if value is not None})
    except InvalidParameterError as error:
        hint = "see the Model and Engine settings in `mlx-gateway serve --help-all`"
        raise Failure(str(error), hint, ExitStatus.USAGE) from error


def _open_replicas(values: Mapping[str, Value]) -> Any:
    """Return a provider that has no model, and whose generations run on other gateways."""
    from provider.replicas.replicas_provider import ReplicasProvider  # noqa: PLC0415

    if values["model"].value:
        hint = "replicas serve the models that they were started with; leave the model out here"
        raise Failure("a gateway with replicas serves no model itself", hint, ExitStatus.USAGE)
    token = os.environ.get(TOKEN_VARIABLE) or None
    try:
        return ReplicasProvider({"replicas": values["replica"].value, "token": token})
    except InvalidParameterError as error:
        hint = "pass `--replica` the address that the other gateway prints, once for each"
        raise Failure(str(error), hint, ExitStatus.USAGE) from error


def _open_ray(kind: str, values: Mapping[str, Value]) -> Any:
    """Return a provider whose replicas Ray Serve starts with the same models and settings."""
    from provider.replicas.ray_provider import RayProvider  # noqa: PLC0415

    passed = {field.name for field in fields(EngineSettings)} | set(OF_MODELS)
    environment = {
        f"{PREFIX}{name.removesuffix('_s').upper()}": _written(one.value)
        for name, one in values.items()
        if name in passed and one.source != "default"
    }
    arguments = ["--provider", kind, "--log-level", values["log_level"].value]
    config = {"replicas": values["replicas"].value, "ray": values["ray"].value}
    try:
        return RayProvider({**config, "arguments": arguments, "environment": environment})
    except ImportError as error:
        hint = "pip install '.[ray]', or name gateways that run with `--replica`"
        raise Failure(f"Ray Serve is not installed: {error}", hint, ExitStatus.USAGE) from error
    except ValueError as error:
        raise Failure(f"`--replicas`: {error}", "such as 2, or 1-3", ExitStatus.USAGE) from error


def _written(value: Any) -> str:
    """Return a setting's value as its variable has it."""
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def progress(loading: str, event: ModelLoading) -> str:
    """Return what the terminal shows of the progress of loading."""
    if event.warming_up:
        return f"warming up… ({event.done} of {event.total} passes)"
    return f"{loading}, {100 * event.done // event.total} %" if event.total else loading


def missing_model(error: ModelNotFoundError) -> str:
    """Return the line of a model that is neither here nor on the hub."""
    return f"cannot get the model `{error.model_name}`: {error.reason}"


def load_failure(error: AbstractLLMError) -> Failure:
    """Return what the user is told of a model that was not loaded."""
    said = missing_model(error) if isinstance(error, ModelNotFoundError) else str(error)
    match error:
        case HubUnreachableError():
            hint = (
                "check the network, or take a model that is on this machine; "
                "`mlx-gateway models` lists those that were downloaded"
            )
        case ModelNotFoundError():
            hint = (
                "pass the path of a folder or of a GGUF file, or OWNER/NAME on the Hugging Face "
                f"hub, such as `{EXAMPLE}`"
            )
        case ModelStorageError():
            hint = ROOM
        case ModelLoadingError():
            hint = (
                "a model folder for mlx-lm holds config.json, *.safetensors and tokenizer.json; "
                "a GGUF file holds all of them"
            )
        case MemoryExceededError():
            hint = (
                "take a smaller model, or one with fewer bits; or raise the limit, which is "
                "`--memory-bytes` or the one that the log names"
            )
        case _:
            return Failure(str(error), "see the log above for the cause", ExitStatus.FAILED)
    return Failure(said, hint, ExitStatus.NO_MODEL)
