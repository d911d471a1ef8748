"""The settings of the engine, each with its default, bounds and a line of help.

The metadata of a field serves the command line, the configuration file and the check of values. It
has `why` (the line of help), `group`, and where they apply `min`, `max` and `choices`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from os import PathLike
from typing import Any

from provider.interface import InvalidParameterError

__all__ = ["EngineSettings", "parse_settings"]


def _setting(default: Any, why: str, **bounds: Any) -> Any:
    return field(default=default, metadata={"why": why, "group": "Engine", **bounds})


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """How an engine shares its time and memory between runs."""

    max_batch: int = _setting(
        32, "answers that are made together, as one batch; more than 32 gain little", min=1
    )
    max_queue: int = _setting(
        1024, "runs that wait for the batch; the next one is told to come back later", min=0
    )
    queue_share: float = _setting(
        0.5,
        "part of the places in queue and batch that one client may have of those that others "
        "leave, once the batch is full; so a newcomer always gets in",
        min=0.01,
        max=1.0,
    )
    client_slowdown: float = _setting(
        1.15,
        "how many times as long a decode step may take for the runs by which one client has more "
        "in the batch than others; its further ones wait while others' are made",
        min=1.0,
    )
    client_prompt_share: float = _setting(
        0.5,
        "part of the engine's time that one client's prompts may take while another's answers are "
        "made, once they have taken 15 seconds; it is divided among more clients, down to half of "
        "it; those of a client that is alone take all of it",
        min=0.01,
        max=1.0,
    )
    max_token_gap: float = _setting(
        0.1, "seconds between two tokens of a stream while another prompt is read", min=0.001
    )
    max_prompt_slowdown: float = _setting(
        2.0,
        "how many times as long as alone a prompt may take beside streams; where `max_token_gap` "
        "would make it slower, as with large models, gaps get longer: at 2, twice as long as the "
        "least that a pass over a prompt and a decode step take, at 4 a third longer than that",
        min=1.05,
    )
    few_shapes: str = _setting(
        "auto",
        "whether prompts are read in chunks of few sizes, with padding, because the first pass of "
        "each shape is slow; `auto` measures that when a model is loaded",
        choices=("auto", "on", "off"),
    )
    warmup: bool = _setting(
        default=True,
        why="whether the forward passes of a model's first requests are made when it is loaded, "
        "where the first of their kind is slow",
    )
    max_unread: int = _setting(
        256, "tokens that wait for a slow reader before its run is parked", min=2
    )
    max_prompt_seconds: float = _setting(
        20.0,
        "seconds of work that building one prompt may take: the model's template, which may loop, "
        "its tokens, its images; a million tokens take about 5",
        min=0.01,
    )
    close_grace: float = _setting(
        5.0, "seconds runs have to finish when the provider closes", min=0
    )
    memory_bytes: int | None = _setting(
        None,
        "memory for the weights and KV caches of all models, such as `8GiB`; by default most of "
        "what the machine, its cgroup or the process may have",
        min=1,
    )
    memory_turn: float = _setting(
        10.0,
        "seconds after which a run that holds more memory than its client's share gives it to "
        "another client's that waits, in turns; a turn begins with reading what the run has "
        "anew, for which short ones leave less time",
        min=0.01,
    )
    dequantise: str = _setting(
        "auto",
        "whether weights in 4 or 8 bits become float32 on a CPU, which decodes several times "
        "faster and takes up to eight times the memory; auto: where half of the memory suffices",
        choices=("auto", "on", "off"),
    )
    prefix_cache_bytes: int | None = _setting(
        None,
        "memory of each model for KV caches of earlier prompts, which later prompts that begin "
        "alike reuse; by default an eighth of what weights and KV caches may take",
        min=0,
    )
    prefix_cache_dir: str | None = _setting(
        None, "folder that keeps KV caches of earlier prompts over a restart; by default none"
    )
    prefix_disk_bytes: int = _setting(4 << 30, "size of that folder, over all models", min=0)
    draft_tokens: int = _setting(
        3,
        "tokens that the draft model proposes a step",
        min=1,
        max=15,  # the number of samples that a seeded run's sampler can undo at once
    )
    kv_bits: int | None = _setting(
        None,
        "bits of a value in a quantised KV cache; runs are then decoded each on its own, not "
        "as a batch; by default KV caches are not quantised",
        choices=(2, 4, 8),
    )
    kv_group_size: int = _setting(
        64, "values of a quantised KV cache that share one scale", choices=(32, 64, 128)
    )
    quantized_kv_start: int = _setting(0, "tokens in a KV cache before it is quantised", min=0)


def parse_settings(config: Mapping[Any, Any]) -> EngineSettings:
    """Return the engine's settings in a provider's configuration, and ignore its other entries.

    Raises InvalidParameterError, with the setting's name, for a value of a wrong type or range.
    """
    given = ((setting, config.get(setting.name)) for setting in fields(EngineSettings))
    return EngineSettings(
        **{setting.name: _checked(setting, value) for setting, value in given if value is not None}
    )


def _checked(setting: Field[Any], value: Any) -> Any:
    bounds = setting.metadata
    if isinstance(setting.default, str):
        if value not in bounds["choices"]:
            raise _unlike(setting, value, f"must be one of {', '.join(bounds['choices'])}")
        return value
    if str(setting.type).startswith("str"):
        if not isinstance(value, str | PathLike):
            raise _unlike(setting, value, "must be a folder's path")
        _refuse_other_choices(setting, str(value))
        return str(value)
    if isinstance(setting.default, bool):
        if not isinstance(value, bool):
            raise _unlike(setting, value, "must be true or false")
        return value
    whole = not isinstance(setting.default, float)
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        raise _unlike(setting, value, "must be a whole number" if whole else "must be a number")
    if value < bounds.get("min", value):
        raise _unlike(setting, value, f"must be at least {bounds['min']:g}")
    if value > bounds.get("max", value):
        raise _unlike(setting, value, f"must be at most {bounds['max']:g}")
    _refuse_other_choices(setting, value)
    return value


def _refuse_other_choices(setting: Field[Any], value: Any) -> None:
    choices = setting.metadata.get("choices", (value,))
    if value not in choices:
        raise _unlike(setting, value, f"must be one of {', '.join(map(str, choices))}")


def _unlike(setting: Field[Any], value: Any, demand: str) -> InvalidParameterError:
    return InvalidParameterError(setting.name, value, f"`{setting.name}` {demand}")
