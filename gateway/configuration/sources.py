"""Settings out of flags, environment variables and a file, the first that has one winning.

A setting's name is its field's, without `_s`: `write_timeout` in the file, `--write-timeout` as a
flag, `MLX_GATEWAY_WRITE_TIMEOUT` in the environment. What none of them says has its default. Sizes
in bytes may be written as `512MiB`, in a file too. A list is a flag given several times, and in a
variable one text with commas.

Pure: no I/O. The settings are dataclasses whose fields' metadata says what is allowed.
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
CONFIG_VARIABLE = f"{PREFIX}CONFIG"  # names the file
TOKENS_VARIABLE = f"{PREFIX}TOKENS"  # tokens that are let in: no flag, which others could see
TOKEN_VARIABLE = f"{PREFIX}TOKEN"  # the one that a client shows
NO_SETTINGS = (CONFIG_VARIABLE, TOKENS_VARIABLE, TOKEN_VARIABLE)
UNITS = {"": 1, "b": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40}
KINDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "bool": "true or false",
    "list": "a list of texts",
}
SWITCHES = {"true": True, "false": False, "yes": True, "no": False, "1": True, "0": False}

Built = TypeVar("Built")


class BadSetting(ValueError):  # noqa: N818 - what the user is told, not an error of ours
    """A setting that can't be had; the message names where it was given and what would be right."""


@dataclass(frozen=True)
class Setting:
    """One setting, however it is given."""

    field: Field[Any]

    @property
    def name(self) -> str:
        """Its name in a file."""
        return self.field.name.removesuffix("_s")

    @property
    def flag(self) -> str:
        """Its name on the command line."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def variable(self) -> str:
        """Its name in the environment."""
        return f"{PREFIX}{self.name.upper()}"

    @property
    def kind(self) -> str:
        """What its values are: int, float, str, bool, or a list of texts."""
        kind = str(self.field.type).partition(" ")[0]
        return "list" if kind.startswith("tuple") else kind

    @property
    def why(self) -> str:
        """What it is for, in a line."""
        return str(self.field.metadata["why"])

    @property
    def group(self) -> str:
        """What it is about."""
        return str(self.field.metadata["group"])

    @property
    def default(self) -> str:
        """Its default as one would write it, "" if there is none."""
        value: Any = self.field.default
        if value is None or value is False or value == ():
            return ""
        if self.name.endswith("_bytes"):
            for unit in ("GiB", "MiB", "KiB"):
                size = UNITS[unit.lower()]
                if value >= size and value % size == 0:
                    return f"{value // size}{unit}"
        return f"{value:g}" if self.kind == "float" else str(value)

    def value_of(self, given: Any) -> Any:
        """Return what was given as the setting's own type. Raises ValueError that says why not."""
        value = self._converted(given)
        bounds = self.field.metadata
        if self.kind == "list":
            return value
        if value not in bounds.get("choices", (value,)):
            raise ValueError(f"must be one of {', '.join(map(str, bounds['choices']))}")
        if value < bounds.get("least", value):
            raise ValueError(f"must be at least {bounds['least']}")
        if value > bounds.get("most", value):
            raise ValueError(f"must be at most {bounds['most']}")
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
    """What is in force, and who said so."""

    value: Any
    source: str  # "default", or the flag, the variable or the file that gave it


def _texts(given: Any, expected: str) -> tuple[str, ...]:
    """Return a list; in one text its parts have commas between."""
    parts = [part.strip() for part in given.split(",")] if isinstance(given, str) else given
    if not isinstance(parts, list | tuple) or not all(isinstance(p, str) and p for p in parts):
        raise ValueError(expected)
    return tuple(parts)


def settings(*classes: type) -> list[Setting]:
    """Return the settings that these dataclasses hold, those of a group together."""
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
    """Return what is in force, by field name.

    `flags` are by field name and None where they were not given, `file` is by setting name.
    Raises BadSetting for a value that is not allowed and for a name that nobody knows.
    """
    by_field = {setting.field.name: setting for setting in known}
    _refuse_unknown(by_field.values(), environment, file, file_name)
    return {
        name: _value(setting, _given(setting, flags, environment, file, file_name))
        for name, setting in by_field.items()
    }


def build(kind: type[Built], values: Mapping[str, Value]) -> Built:
    """Return one of the settings' classes with the values in force."""
    return kind(**{field.name: values[field.name].value for field in fields(kind)})  # type: ignore[arg-type]


def read_file(text: str, file_name: str) -> dict[str, Any]:
    """Return the settings of a TOML file. Raises BadSetting if it is none."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadSetting(f"`{file_name}` is not TOML: {error}") from error


def as_toml(known: Iterable[Setting], values: Mapping[str, Value]) -> Iterator[str]:
    """Return the lines of a file that says what is in force, and in comments where from."""
    group = None
    for setting in known:
        if setting.group != group:
            yield f"{'' if group is None else chr(10)}# {setting.group}"
            group = setting.group
        value, source = values[setting.field.name].value, values[setting.field.name].source
        if value is None or value == ():
            yield f"# {setting.name} =  # {source}: {setting.why}"
        else:
            yield f"{setting.name} = {_toml(value)}  # {source}"


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
    """Return what somebody gave, unchecked, or the default."""
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
    for name in file:
        if name not in names:
            raise BadSetting(f"`{name}` in `{file_name}` is no setting{_nearest(name, names)}")
    for name in environment:
        if name.startswith(PREFIX) and name not in variables:
            raise BadSetting(f"`{name}` is no setting{_nearest(name, variables)}")


def _nearest(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, 1)
    return f"; did you mean `{near[0]}`?" if near else ""
