"""Every setting has a default, bounds and a line of help, and is checked by them."""

from dataclasses import fields
from pathlib import Path

import pytest

from provider.errors import InvalidParameterError
from provider.settings import EngineSettings, parse_settings

EVERY = {setting.name: setting for setting in fields(EngineSettings)}
NUMBERS = {
    name: one for name, one in EVERY.items() if not str(one.type).startswith(("str", "bool"))
}
SWITCHES = [name for name, one in EVERY.items() if str(one.type) == "bool"]


@pytest.mark.parametrize("name", EVERY)
def test_a_setting_has_a_line_of_help_and_a_default_within_its_bounds(name):
    setting = EVERY[name]
    assert setting.metadata["why"]
    assert not setting.metadata["why"].endswith(".")
    if setting.default is not None:
        assert getattr(parse_settings({name: setting.default}), name) == setting.default


def test_nothing_given_is_every_default():
    assert parse_settings({}) == EngineSettings()
    assert parse_settings(dict.fromkeys(EVERY)) == EngineSettings()


def test_other_entries_of_the_configuration_are_ignored():
    assert parse_settings({"model": "m", "max_batch": 4}) == EngineSettings(max_batch=4)


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_is_checked(name):
    bounds = NUMBERS[name].metadata
    wrong = ["4", True, [1]]
    wrong += [bounds["min"] - 1] if "min" in bounds else []
    wrong += [bounds["max"] + 1] if "max" in bounds else []
    wrong += [max(bounds["choices"]) + 1] if "choices" in bounds else []
    wrong += [] if isinstance(NUMBERS[name].default, float) else [1.5]
    for value in wrong:
        with pytest.raises(InvalidParameterError, match=f"`{name}` must be ") as caught:
            parse_settings({name: value})
        assert (caught.value.parameter, caught.value.value) == (name, value)


def test_a_word_is_one_of_few():
    assert parse_settings({"few_shapes": "on"}).few_shapes == "on"
    with pytest.raises(InvalidParameterError, match="must be one of auto, on, off"):
        parse_settings({"few_shapes": "perhaps"})


@pytest.mark.parametrize("name", SWITCHES)
def test_a_switch_is_true_or_false(name):
    assert getattr(parse_settings({name: False}), name) is False
    for wrong in (0, 1, "false"):
        with pytest.raises(InvalidParameterError, match="must be true or false"):
            parse_settings({name: wrong})


def test_a_number_of_seconds_may_be_whole():
    assert parse_settings({"close_grace": 2}).close_grace == 2


def test_a_folder_is_a_text_or_a_path():
    given = parse_settings({"prefix_cache_dir": Path("kept")})
    assert given.prefix_cache_dir == "kept"
    with pytest.raises(InvalidParameterError, match="must be a folder's path"):
        parse_settings({"prefix_cache_dir": 3})


def test_a_choice_is_one_of_its_words():
    assert parse_settings({"dequantise": "off"}).dequantise == "off"
    for wrong in ("perhaps", 3):
        with pytest.raises(InvalidParameterError, match="must be one of auto, on, off"):
            parse_settings({"dequantise": wrong})
