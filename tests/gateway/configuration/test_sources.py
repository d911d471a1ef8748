"""Settings out of flags, the environment and a file."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.configuration.settings import ServeSettings, Settings
from gateway.configuration.sources import (
    BadSetting,
    as_toml,
    build,
    read_file,
    resolve,
    settings,
)
from provider.settings import EngineSettings

ALL = settings(ServeSettings, Settings, EngineSettings)


def in_force(**given):
    return resolve(ALL, **given)


def test_without_anything_every_setting_has_its_default():
    values = in_force()
    assert build(Settings, values) == Settings()
    assert build(EngineSettings, values) == EngineSettings()
    assert {value.source for value in values.values()} == {"default"}


def test_a_flag_wins_over_a_variable_and_a_variable_over_the_file():
    file = {"port": 1, "max_batch": 1, "write_timeout": 1}
    environment = {"MLX_GATEWAY_PORT": "2", "MLX_GATEWAY_MAX_BATCH": "2", "HOME": "/"}
    values = in_force(
        flags={"port": "3", "host": None}, environment=environment, file=file, file_name="a.toml"
    )
    found = {name: (values[name].value, values[name].source) for name in ("port", "max_batch")}
    assert found == {"port": (3, "--port"), "max_batch": (2, "MLX_GATEWAY_MAX_BATCH")}
    assert (values["write_timeout_s"].value, values["write_timeout_s"].source) == (1.0, "a.toml")


@pytest.mark.parametrize(
    ("text", "size"), [("8MiB", 8 << 20), ("1 kib", 1 << 10), ("2gib", 2 << 30), ("4096", 4096)]
)
def test_bytes_may_have_a_unit(text, size):
    assert in_force(flags={"max_frame_bytes": text})["max_frame_bytes"].value == size
    assert in_force(file={"max_frame_bytes": text})["max_frame_bytes"].value == size


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("port", "http", "`--port` must be a whole number, not 'http'"),
        ("port", "70000", "`--port` must be at most 65535"),
        ("port", "8MiB", "`--port` must be a whole number, not '8MiB'"),
        ("max_batch", "0", "`--max-batch` must be at least 1"),
        ("kv_bits", "3", "`--kv-bits` must be one of 2, 4, 8"),
        ("log_level", "loud", "`--log-level` must be one of debug, info, warning, error"),
        ("write_timeout_s", "nan", "`--write-timeout` must be a number, not 'nan'"),
        ("write_timeout_s", "soon", "`--write-timeout` must be a number, not 'soon'"),
        ("host", "", "`--host` must be a string, not ''"),
        (
            "node",
            "a/b",
            "`--node` must be 1 to 64 of the characters A-Z, a-z, 0-9, `.`, `_` and `-`",
        ),
        (
            "memory_bytes",
            "8MB",
            "`--memory-bytes` must be a whole number, or a size such as 512MiB, not '8MB'",
        ),
    ],
)
def test_what_is_not_allowed_says_where_and_what_would_be_right(name, given, message):
    with pytest.raises(BadSetting) as caught:
        in_force(flags={name: given})
    assert str(caught.value) == message


def test_what_a_file_says_wrongly_names_the_file():
    with pytest.raises(BadSetting, match=r"^`port` in `a.toml` must be a whole number, not True$"):
        in_force(file={"port": True}, file_name="a.toml")
    with pytest.raises(BadSetting, match=r"^`MLX_GATEWAY_PORT` must be at least 0$"):
        in_force(environment={"MLX_GATEWAY_PORT": "-1"})
    with pytest.raises(BadSetting, match=r"^`a.toml` is not TOML: "):
        read_file("port: 1", "a.toml")


def test_an_unknown_name_names_the_nearest():
    with pytest.raises(BadSetting, match=r"`max_bach` in `a.toml` .* did you mean `max_batch`"):
        in_force(file={"max_bach": 1}, file_name="a.toml")
    with pytest.raises(BadSetting, match=r"`MLX_GATEWAY_PROT` .* did you mean `MLX_GATEWAY_PORT`"):
        in_force(environment={"MLX_GATEWAY_PROT": "1"})
    with pytest.raises(BadSetting, match=r"^`MLX_GATEWAY_FOO` is not a setting$"):
        in_force(environment={"MLX_GATEWAY_FOO": "1"})
    in_force(environment={"MLX_GATEWAY_CONFIG": "a.toml"})


def test_names_are_the_same_in_all_three_places():
    for setting in ALL:
        assert setting.flag.removeprefix("--").replace("-", "_") == setting.name
        assert setting.variable == f"MLX_GATEWAY_{setting.name.upper()}"
    assert len({setting.name for setting in ALL}) == len(ALL)


@given(st.text(min_size=1).filter(lambda text: text.isprintable() or '"' in text))
def test_what_is_printed_can_be_read_again(text):
    flags = {"unix": text, "port": "0", "max_token_gap": "0.25", "max_frame_bytes": "4MiB"}
    values = in_force(flags=flags)
    printed = "\n".join(as_toml(ALL, values))
    again = in_force(file=read_file(printed, "printed"))
    assert {name: value.value for name, value in again.items()} == {
        name: value.value for name, value in values.items()
    }
    assert tomllib.loads(printed)["unix"] == text


@pytest.mark.parametrize(
    "given",
    [
        {"flags": {"model": ["a=x", "b"]}},
        {"environment": {"MLX_GATEWAY_MODEL": "a=x, b"}},
        {"file": {"model": ["a=x", "b"]}, "file_name": "f"},
    ],
)
def test_a_list_is_a_flag_given_again_a_text_with_commas_or_an_array(given):
    values = in_force(**given)
    assert values["model"].value == ("a=x", "b")
    printed = "\n".join(as_toml(ALL, values))
    assert tomllib.loads(printed)["model"] == ["a=x", "b"]


@pytest.mark.parametrize("bad", [3, [3], ["", "x"], "a,,b", ""])
def test_a_list_of_something_else_is_refused(bad):
    with pytest.raises(BadSetting, match="`model` in `f` must be a list of strings"):
        in_force(file={"model": bad}, file_name="f")
