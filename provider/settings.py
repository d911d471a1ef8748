"""The settings of the engine, each once, with its default, its unit and its reason.

A field's metadata is what a command line, a file and a check need: `why` (one line), and where they
apply `least`, `most`, `choices`.
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
    """How the engine shares itself out."""

    max_batch: int = _setting(
        32, "runs that decode together; beyond it throughput gains little", least=1
    )
    max_queue: int = _setting(
        1024, "runs that wait; beyond it one is told to come back later", least=0
    )
    max_token_gap: float = _setting(
        0.1, "seconds between a stream's tokens while a prompt is read", least=0.001
    )
    max_unread: int = _setting(
        256, "tokens whose text waits for a reader before its run is parked", least=2
    )
    close_grace: float = _setting(
        5.0, "seconds that runs have to come to their ends at shutdown", least=0
    )
    memory_bytes: int | None = _setting(
        None, "for weights and KV caches; absent, 0.9 of what MLX may use", least=1
    )
    prefix_cache_bytes: int | None = _setting(
        None, "for what was read; absent, an eighth of the memory", least=0
    )
    prefix_cache_dir: str | None = _setting(None, "a folder where what was read survives a restart")
    prefix_disk_bytes: int = _setting(4 << 30, "in that folder, over all models", least=0)
    draft_tokens: int = _setting(
        3,
        "tokens that the draft model proposes a step, if there is one",
        least=1,
        most=15,  # seeded samplers go back so far at once
    )
    kv_bits: int | None = _setting(
        None, "quantises KV caches; runs then go one by one", choices=(2, 4, 8)
    )
    kv_group_size: int = _setting(
        64, "values of a quantised cache that share a scale", choices=(32, 64, 128)
    )
    quantized_kv_start: int = _setting(0, "tokens before a cache is quantised", least=0)


def parse_settings(config: Mapping[Any, Any]) -> EngineSettings:
    """Return the engine's settings out of a provider's configuration.

    Raises InvalidParameterError, which names the setting, for one that is no number or too small.
    """
    given = ((setting, config.get(setting.name)) for setting in fields(EngineSettings))
    return EngineSettings(
        **{setting.name: _checked(setting, value) for setting, value in given if value is not None}
    )


def _checked(setting: Field[Any], value: Any) -> Any:
    bounds = setting.metadata
    if str(setting.type).startswith("str"):
        if not isinstance(value, str | PathLike):
            raise _unlike(setting, value, "must be a folder's path")
        return str(value)
    whole = not isinstance(setting.default, float)
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        raise _unlike(setting, value, "must be a whole number" if whole else "must be a number")
    if value < bounds.get("least", value):
        raise _unlike(setting, value, f"must be at least {bounds['least']:g}")
    if value > bounds.get("most", value):
        raise _unlike(setting, value, f"must be at most {bounds['most']:g}")
    if value not in bounds.get("choices", (value,)):
        raise _unlike(setting, value, f"must be one of {str(bounds['choices'])[1:-1]}")
    return value


def _unlike(setting: Field[Any], value: Any, demand: str) -> InvalidParameterError:
    return InvalidParameterError(setting.name, value, f"`{setting.name}` {demand}")
