"""Flags made of settings, and what help shows of them."""

import inspect

import pytest
import typer
from typer.testing import CliRunner

from gateway.commands import cli
from gateway.commands.failure import ExitStatus
from gateway.commands.setting_flags import COMMON, SETTINGS, in_force, with_settings


def parameters():
    @with_settings
    def command(*, mine: str = "x", flags: dict):
        """Do."""

    return inspect.signature(command).parameters


def test_every_setting_is_a_flag_and_is_passed_on():
    found = []

    @with_settings
    def command(*, mine: str = "x", flags: dict):
        found.append((mine, flags["port"]))

    command(mine="y", port="3", **{s.field.name: None for s in SETTINGS if s.name != "port"})
    assert found == [("y", "3")]
    assert {*parameters()} == {"mine", *(setting.field.name for setting in SETTINGS)}


def test_the_dozen_that_people_use_come_first_and_the_others_are_hidden():
    assert len(COMMON) == 12
    options = {
        name: one.annotation.__metadata__[0] for name, one in parameters().items() if name != "mine"
    }
    assert {*list(options)[:12]} == {*COMMON}
    assert {name for name, option in options.items() if not option.hidden} == {*COMMON}


@pytest.mark.parametrize("command", [(), ("serve",), ("chat",), ("run",), ("token", "new")])
def test_help_names_no_types_of_switches_and_is_asked_for_by_a_letter_too(command):
    shown = CliRunner().invoke(cli.app, [*command, "-h"], obj=0.0).stdout
    assert "--help" in shown
    assert "<bool>" not in shown


def test_a_shell_completes_all_of_them(monkeypatch):
    monkeypatch.setenv("_MLX_GATEWAY_COMPLETE", "complete_bash")
    assert not parameters()["max_depth"].annotation.__metadata__[0].hidden


def test_a_setting_that_is_wrong_ends_the_program(monkeypatch, tmp_path):
    assert in_force({"port": "3"}, None)["port"].value == 3
    for flags, file in [({"port": "x"}, None), ({}, tmp_path / "none.toml")]:
        with pytest.raises(typer.Exit) as caught:
            in_force(flags, file)
        assert caught.value.exit_code == ExitStatus.USAGE
    monkeypatch.setenv("MLX_GATEWAY_CONFIG", str(tmp_path / "a.toml"))
    (tmp_path / "a.toml").write_text("port = 7\n")
    assert in_force({}, None)["port"].value == 7
