"""The settings of the engine, each once, with its default, its unit and its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, dataclass, fields
from os import PathLike
from typing import Any

from provider.interface import InvalidParameterError

__all__ = ["EngineSettings", "parse_settings"]


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """How the engine shares itself out."""

    max_batch: int = 32  # runs that decode together; beyond it throughput gains little
    max_queue: int = 1024  # runs that wait; beyond it one is told to come back later
    max_token_gap: float = 0.1  # seconds between a stream's tokens while a prompt is read
    max_unread: int = 256  # tokens whose text waits for a reader before its run is parked
    close_grace: float = 5.0  # seconds that runs have to come to their ends at `close`
    memory_bytes: int | None = None  # for weights and KV caches; absent, 0.9 of what MLX may use
    prefix_cache_bytes: int | None = None  # for what was read; absent, an eighth of the memory
    prefix_cache_dir: str | None = None  # a folder where it survives a restart
    prefix_disk_bytes: int = 4 << 30  # in that folder, over all models
    draft_tokens: int = 3  # that the draft model proposes a step, if there is one
    kv_bits: int | None = None  # quantises KV caches; runs then go one by one
    kv_group_size: int = 64  # values that share a scale
    quantized_kv_start: int = 0  # tokens before a cache is quantised


LEAST: dict[str, float] = {
    "max_batch": 1,
    "max_queue": 0,
    "max_token_gap": 0.001,
    "max_unread": 2,
    "close_grace": 0,
    "memory_bytes": 1,
    "prefix_cache_bytes": 0,
    "prefix_disk_bytes": 0,
    "draft_tokens": 1,
    "kv_bits": 2,
    "kv_group_size": 32,
    "quantized_kv_start": 0,
}
CHOICES: dict[str, tuple[int, ...]] = {"kv_bits": (2, 4, 8), "kv_group_size": (32, 64, 128)}
FOLDERS = {"prefix_cache_dir"}
MOST: dict[str, float] = {"draft_tokens": 15}  # seeded samplers go back so far at once


def parse_settings(config: Mapping[Any, Any]) -> EngineSettings:
    """Return the engine's settings out of a provider's configuration.

    Raises InvalidParameterError, which names the setting, for one that is no number or too small.
    """
    given = ((setting, config.get(setting.name)) for setting in fields(EngineSettings))
    return EngineSettings(
        **{setting.name: _checked(setting, value) for setting, value in given if value is not None}
    )


def _checked(setting: Field[Any], value: Any) -> Any:
    if setting.name in FOLDERS:
        if not isinstance(value, str | PathLike):
            raise _unlike(setting, value, "must be a folder's path")
        return str(value)
    whole = not isinstance(setting.default, float)
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        raise _unlike(setting, value, "must be a whole number" if whole else "must be a number")
    if value < LEAST[setting.name]:
        raise _unlike(setting, value, f"must be at least {LEAST[setting.name]:g}")
    if value > MOST.get(setting.name, value):
        raise _unlike(setting, value, f"must be at most {MOST[setting.name]:g}")
    if value not in CHOICES.get(setting.name, (value,)):
        raise _unlike(setting, value, f"must be one of {str(CHOICES[setting.name])[1:-1]}")
    return value


def _unlike(setting: Field[Any], value: Any, demand: str) -> InvalidParameterError:
    return InvalidParameterError(setting.name, value, f"`{setting.name}` {demand}")
