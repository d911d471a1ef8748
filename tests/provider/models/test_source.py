"""The source of a model, and the errors if there is no model."""

import pytest

from provider.embedded import MODEL_PATH
from provider.interface import ModelLoadingError, ModelNotFoundError
from provider.models.source import EMBEDDED, model_name, resolve, resolve_adapter


@pytest.fixture
def folder(tmp_path):
    """A folder named `mine`, to which files are added by name."""
    path = tmp_path / "mine"
    path.mkdir()

    def add(*names):
        for name in names:
            (path / name).write_text("{}")
        return path

    return add


@pytest.mark.parametrize("model", [None, EMBEDDED])
def test_the_model_in_the_package_has_a_name_of_its_own(model):
    assert model_name(model) == EMBEDDED
    assert resolve(model) == MODEL_PATH


def test_a_model_is_named_by_its_folder_or_its_hub_id(folder, monkeypatch):
    path = folder()
    assert model_name(str(path)) == "mine"
    monkeypatch.chdir(path)
    assert model_name(".") == "mine"
    assert model_name("owner/model") == "owner/model"


@pytest.mark.parametrize("name", ["x" * 5000, "~nobody-is-called-so/x", "a\0b"])
def test_an_invalid_path_is_not_a_folder(name):
    assert model_name(name) == name
    with pytest.raises(ModelNotFoundError):
        resolve(name)


def test_a_folder_must_have_a_configuration_and_weights(folder):
    path = str(folder())
    with pytest.raises(ModelLoadingError, match=r"has no config\.json"):
        resolve(path)
    folder("config.json")
    with pytest.raises(ModelLoadingError, match=r"no \*\.safetensors"):
        resolve(path)
    assert resolve(str(folder("model-00001.safetensors"))) == folder()


def test_a_gguf_file_is_a_model_and_is_named_without_its_ending(folder):
    path = folder() / "small.Q4_1.gguf"
    path.write_bytes(b"GGUF")
    assert resolve(str(path)) == path
    assert model_name(str(path)) == "small.Q4_1"


def test_another_file_is_no_model(folder):
    path = folder("config.json") / "config.json"
    with pytest.raises(ModelLoadingError, match="is no GGUF file, and no folder"):
        resolve(str(path))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("./nofolder", "not found: there is no such folder$"),
        ("../mine/x", "there is no such folder$"),
        ("/nowhere/model", "there is no such folder$"),
        ("~/models/x", "there is no such folder$"),
        ("small.gguf", "there is no such file$"),
        ("models/small.gguf", "there is no such file$"),
        ("nothing", "no such folder, and it is not a hub id of the form OWNER/NAME"),
    ],
)
def test_the_hub_is_not_blamed_for_a_path_that_is_not_there(name, said):
    with pytest.raises(ModelNotFoundError, match=said):
        resolve(name)


def test_an_adapter_has_a_configuration_and_weights_of_its_own(folder):
    path = str(folder("adapter_config.json"))
    with pytest.raises(ModelLoadingError, match=r"it has no adapters\.safetensors"):
        resolve_adapter(path)
    assert resolve_adapter(str(folder("adapters.safetensors"))) == folder()
    with pytest.raises(ModelNotFoundError):
        resolve_adapter("no such adapter")
