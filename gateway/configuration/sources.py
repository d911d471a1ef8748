"""Settings from flags, environment variables and a file; the first of these that has a value wins.

A setting is named after its field, without `_s`: the flag `--write-timeout`, the variable
`MLX_GATEWAY_WRITE_TIMEOUT`, and `write_timeout` in the file. A setting without a value takes
its default. Sizes in bytes may be written as `512MiB`. A list is given by repeating its flag, by
commas in the variable, or by an array in the file.

Pure: no I/O. The settings are fields of dataclasses, whose metadata gives the allowed values.
"""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import Field, dataclass, fields
from typing import Any, TypeVar

__all__ = ["BadSetting", "Setting", "Value", "as_toml", "build", "read_file", "resolve", "settings"]

PREFIX = "MLX_GATEWAY_"
CONFIG_VARIABLE = f"{PREFIX}CONFIG"  # path of the file
TOKENS_VARIABLE = (
    f"{PREFIX}TOKENS"  # accepted tokens; never a flag, which other users of the machine could see
)
TOKEN_VARIABLE = f"{PREFIX}TOKEN"  # the token of a client
NO_SETTINGS = (CONFIG_VARIABLE, TOKENS_VARIABLE, TOKEN_VARIABLE)
UNITS = {"": 1, "b": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40}
KINDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "a string",
    "bool": "true or false",
    "list": "a list of strings",
}
SWITCHES = {"true": True, "false": False, "yes": True, "no": False, "1": True, "0": False}

Built = TypeVar("Built")


class BadSetting(ValueError):  # noqa: N818 - a message for the user, not a fault of ours
    """A wrong setting; the message names where it was given and what is allowed."""


@dataclass(frozen=True)
class Setting:
    """One setting, with its names, type, default and bounds."""

    field: Field[Any]

    @property
    def name(self) -> str:
        """The name in a file."""
        return self.field.name.removesuffix("_s")

    @property
    def flag(self) -> str:
        """The name on the command line."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def variable(self) -> str:
        """The name in the environment."""
        return f"{PREFIX}{self.name.upper()}"

    @property
    def kind(self) -> str:
        """The type of its values: int, float, str, bool or list."""
        kind = str(self.field.type).partition(" ")[0]
        return "list" if kind.startswith("tuple") else kind

    @property
    def why(self) -> str:
        """The line of help."""
        return str(self.field.metadata["why"])

    @property
    def group(self) -> str:
        """The heading under which `--help` shows it."""
        return str(self.field.metadata["group"])

    @property
    def default(self) -> str:
        """The default as a user writes it, an empty string if there is none."""
        value: Any = self.field.default
        if value is None or value is False or value == ():
            return ""
        if value is True:
            return "true"
        if self.name.endswith("_bytes"):
            return _size(value)
        return f"{value:g}" if self.kind == "float" else str(value)

    def value_of(self, given: Any) -> Any:
        """Return a given value converted and checked. Raises ValueError saying what is allowed."""
        value = self._converted(given)
        bounds = self.field.metadata
        if self.kind == "list":
            return value
        if value not in bounds.get("choices", (value,)):
            raise ValueError(f"must be one of {', '.join(map(str, bounds['choices']))}")
        if "matches" in bounds and not re.fullmatch(bounds["matches"], value):
            raise ValueError(f"must be {bounds['form']}")
        if value < bounds.get("min", value):
            raise ValueError(f"must be at least {bounds['min']}")
        if value > bounds.get("max", value):
            raise ValueError(f"must be at most {bounds['max']}")
        return value

    def _converted(self, given: Any) -> Any:
        expected = f"must be {KINDS[self.kind]}, not {given!r}"
        if self.kind == "str":
            if isinstance(given, str) and given:
                return given
            raise ValueError(expected)
        if self.kind == "list":
            return _texts(given, expected)
        if self.kind == "bool":
            switch = SWITCHES.get(given.lower()) if isinstance(given, str) else given
            if isinstance(switch, bool):
                return switch
            raise ValueError(expected)
        number = self._parsed(given, expected) if isinstance(given, str) else given
        allowed = int if self.kind == "int" else int | float
        if isinstance(number, allowed) and type(number) is not bool and math.isfinite(number):
            return number if self.kind == "int" else float(number)
        raise ValueError(expected)

    def _parsed(self, text: str, expected: str) -> int | float:
        unit = r"([a-z]*)" if self.name.endswith("_bytes") else "()"
        whole = re.fullmatch(rf"([+-]?\d{{1,19}})\s*{unit}", text.strip(), re.IGNORECASE)
        if whole and whole[2].lower() in UNITS:
            return int(whole[1]) * UNITS[whole[2].lower()]
        if self.kind == "float":
            try:
                return float(text)
            except ValueError:
                pass
        size = ", or a size such as 512MiB" if self.name.endswith("_bytes") else ""
        raise ValueError(expected.replace(", not", f"{size}, not"))


@dataclass(frozen=True)
class Value:
    """The value of a setting, and where it comes from."""

    value: Any
    source: str  # "default", or the name of a flag, a variable or a file


def _size(nbytes: int) -> str:
    """Return a number of bytes in the largest unit of which it is a multiple."""
    for unit in ("GiB", "MiB", "KiB"):
        size = UNITS[unit.lower()]
        if nbytes >= size and nbytes % size == 0:
            return f"{nbytes // size}{unit}"
    return str(nbytes)


def _texts(given: Any, expected: str) -> tuple[str, ...]:
    """Return the items of a list, or the comma-separated parts of one text."""
    parts = [part.strip() for part in given.split(",")] if isinstance(given, str) else given
    if not isinstance(parts, list | tuple) or not all(isinstance(p, str) and p for p in parts):
        raise ValueError(expected)
    return tuple(parts)


def settings(*classes: type) -> list[Setting]:
    """Return the settings of these dataclasses, ordered by group."""
    found = [Setting(field) for kind in classes for field in fields(kind)]
    groups = list(dict.fromkeys(setting.group for setting in found))
    return sorted(found, key=lambda setting: groups.index(setting.group))


def resolve(
    known: Iterable[Setting],
    *,
    flags: Mapping[str, Any] = {},
    environment: Mapping[str, str] = {},
    file: Mapping[str, Any] = {},
    file_name: str = "",
) -> dict[str, Value]:
    """Return the values in force, by field name.

    `flags` are by field name, None where not given; `file` is by setting name. Raises BadSetting
    for a value that is not allowed, and for an unknown name.
    """
    by_field = {setting.field.name: setting for setting in known}
    _refuse_unknown(by_field.values(), environment, file, file_name)
    return {
        name: _value(setting, _given(setting, flags, environment, file, file_name))
        for name, setting in by_field.items()
    }


def build(kind: type[Built], values: Mapping[str, Value]) -> Built:
    """Return an instance of a settings class with the values in force."""
    return kind(**{field.name: values[field.name].value for field in fields(kind)})  # type: ignore[arg-type]


def read_file(text: str, file_name: str) -> dict[str, Any]:
    """Return the settings of a TOML file. Raises BadSetting for a text that is not TOML."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadSetting(f"`{file_name}` is not TOML: {error}") from error


def as_toml(known: Iterable[Setting], values: Mapping[str, Value]) -> Iterator[str]:
    """Return the lines of a TOML file with the values in force, and comments on their sources."""
    group = None
    for setting in known:
        if setting.group != group:
            yield f"{'' if group is None else chr(10)}# {setting.group}"
            group = setting.group
        value, source = values[setting.field.name].value, values[setting.field.name].source
        if value is None or value == ():
            yield f"# {setting.name} = …  # not set; {KINDS[setting.kind]}"
            continue
        sized = setting.name.endswith("_bytes") and not _size(value).isdecimal()
        yield f"{setting.name} = {_toml(_size(value) if sized else value)}  # {source}"


def _toml(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, str):
        escaped = re.sub(r'["\\\x00-\x1f\x7f]', lambda found: f"\\u{ord(found[0]):04x}", value)
        return f'"{escaped}"'
    return str(value).lower()


def _given(
    setting: Setting,
    flags: Mapping[str, Any],
    environment: Mapping[str, str],
    file: Mapping[str, Any],
    file_name: str,
) -> Value:
    """Return the value that was given, unchecked, or the default."""
    if flags.get(setting.field.name) not in (None, [], ()):
        return Value(flags[setting.field.name], setting.flag)
    if setting.variable in environment:
        return Value(environment[setting.variable], setting.variable)
    if setting.name in file:
        return Value(file[setting.name], file_name)
    return Value(setting.field.default, "default")


def _value(setting: Setting, given: Value) -> Value:
    if given.source == "default":
        return given
    try:
        return Value(setting.value_of(given.value), given.source)
    except ValueError as error:
        named = given.source in {setting.flag, setting.variable}
        where = f"`{given.source}`" if named else f"`{setting.name}` in `{given.source}`"
        raise BadSetting(f"{where} {error}") from error


def _refuse_unknown(
    known: Iterable[Setting],
    environment: Mapping[str, str],
    file: Mapping[str, Any],
    file_name: str,
) -> None:
    names = [setting.name for setting in known]
    variables = [f"{PREFIX}{name.upper()}" for name in names] + list(NO_SETTINGS)
    rests = [variable.removeprefix(PREFIX) for variable in variables]
    for name in file:
        if name not in names:
            raise BadSetting(f"`{name}` in `{file_name}` is not a setting{_nearest(name, names)}")
    for name in environment:
        if name.startswith(PREFIX) and name not in variables:
            near = _nearest(name.removeprefix(PREFIX), rests, PREFIX)
            raise BadSetting(f"`{name}` is not a setting{near}")


def _nearest(name: str, names: list[str], prefix: str = "") -> str:
    near = difflib.get_close_matches(name, names, 1)
    return f"; did you mean `{prefix}{near[0]}`?" if near else ""
