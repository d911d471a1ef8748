from dataclasses import fields

import pytest

from gateway.configuration.settings import ServeSettings, Settings
from gateway.configuration.sources import Setting

ALL = [Setting(one) for kind in (ServeSettings, Settings) for one in fields(kind)]


@pytest.mark.parametrize("setting", ALL, ids=lambda setting: setting.name)
def test_a_setting_says_what_it_is_for_and_where_it_belongs(setting):
    assert setting.why
    assert not setting.why.endswith(".")
    assert setting.group in {"Model", "Server", "Access", "Limits", "Timeouts"}


@pytest.mark.parametrize("setting", ALL, ids=lambda setting: setting.name)
def test_a_default_is_within_its_own_bounds(setting):
    if setting.field.default is not None:
        assert setting.value_of(setting.field.default) == setting.field.default


@pytest.mark.parametrize("setting", ALL, ids=lambda setting: setting.name)
def test_a_bound_is_kept(setting):
    metadata = setting.field.metadata
    for bound, beyond in (("min", -1), ("max", 1)):
        if bound in metadata:
            with pytest.raises(ValueError, match="must be at"):
                setting.value_of(metadata[bound] + beyond)
    if "choices" in metadata:
        with pytest.raises(ValueError, match="must be one of"):
            setting.value_of("neither")


def test_no_two_settings_have_one_name():
    names = [setting.name for setting in ALL]
    assert len(names) == len(set(names))


def test_times_are_in_seconds_and_shown_without_the_unit():
    timeouts = [setting for setting in ALL if setting.group == "Timeouts"]
    assert len(timeouts) > 5
    for setting in timeouts:
        assert setting.field.name == f"{setting.name}_s"
        assert setting.kind == "float"


def test_a_replica_has_no_limits_of_one_client_and_all_others():
    usual, changed = Settings(port=1), Settings(port=1).of_a_replica()
    assert changed.max_generations == changed.max_generations_in_all
    before, after = vars(usual), vars(changed)
    differ = {name for name in before if before[name] != after[name]}
    assert differ == {
        "max_generations",
        "max_generations_per_token",
        "client_share",
        "frame_rate",
        "client_frame_rate",
        "rate_bytes",
        "client_rate_bytes",
        "client_loop_share",
    }
