"""What is said of a provider that starts, or doesn't."""

import importlib.util

import pytest

from gateway.commands.failure import ExitStatus, Failure
from gateway.commands.provider_start import load_failure, open_provider, progress
from gateway.commands.setting_flags import in_force
from provider.errors import (
    GenerationError,
    HubUnreachableError,
    MemoryExceededError,
    ModelLoadingError,
    ModelNotFoundError,
    ModelStorageError,
)
from provider.interface import ModelLoading
from provider.scripted import ScriptedProvider


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (ModelLoading("m", 0, 0), "loading m"),
        (ModelLoading("m", 30, 40), "loading m, 75 %"),
        (ModelLoading("m", 3, 40, warming_up=True), "warming up… (3 of 40 passes)"),
    ],
)
def test_the_terminal_tells_what_the_loading_is_at(event, said):
    assert progress("loading m", event) == said


@pytest.mark.parametrize(
    ("error", "said", "hint"),
    [
        (HubUnreachableError("a/b", "no hub"), "cannot get the model `a/b`: no hub", "the network"),
        (ModelNotFoundError("m", "no folder"), "cannot get the model `m`: no folder", "pass the"),
        (ModelStorageError("no space"), "no space", "`HF_HOME`"),
        (ModelLoadingError("it is broken"), "it is broken", "holds config.json"),
        (MemoryExceededError("too large"), "too large", "take a smaller model"),
        (GenerationError("it went wrong"), "it went wrong", "see the log"),
    ],
)
def test_each_way_not_to_load_has_a_hint_of_its_own(error, said, hint):
    failure = load_failure(error)
    assert str(failure) == said
    assert hint in failure.hint
    other = isinstance(error, GenerationError)
    assert failure.status is (ExitStatus.FAILED if other else ExitStatus.NO_MODEL)


def test_a_provider_is_opened_by_its_kind():
    assert isinstance(open_provider("scripted", in_force({}, None)), ScriptedProvider)
    with pytest.raises(Failure, match="`nobody` is not served"):
        open_provider("mlx", in_force({"pin": ["nobody"]}, None))


def test_a_gateway_in_front_of_replicas_serves_no_model_itself():
    opened = open_provider("mlx", in_force({"replica": ["a:1", "b:1"]}, None))
    assert [replica.name for replica in opened.fleet.replicas] == ["a:1", "b:1"]
    with pytest.raises(Failure, match="serves no model itself"):
        open_provider("mlx", in_force({"replica": ["a:1"], "model": ["embedded"]}, None))
    with pytest.raises(Failure, match="`a:1` is given twice") as caught:
        open_provider("mlx", in_force({"replica": ["a:1", "a:1"]}, None))
    assert caught.value.status is ExitStatus.USAGE


def test_replicas_of_ray_serve_need_a_number_and_ray():
    with pytest.raises(Failure, match="`0` is no number of replicas"):
        open_provider("mlx", in_force({"replicas": "0"}, None))
    if importlib.util.find_spec("ray") is None:
        with pytest.raises(Failure, match="Ray Serve is not installed"):
            open_provider("mlx", in_force({"replicas": "2"}, None))
