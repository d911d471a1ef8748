"""One provider for all tests of a module, of the embedded model or of one that is lighter."""

import pytest

from provider import MLXProvider


@pytest.fixture(scope="module")
def provider():
    provider = MLXProvider({"temperature": 0.0, "max_tokens": 64})
    yield provider
    provider.close()


@pytest.fixture(scope="session")
def light(tmp_path_factory):
    """The folder of a model for tests of what is done with a model, whatever it says."""
    from tests.support.tiny_models import LIGHT, write_model

    return write_model(tmp_path_factory.mktemp("models") / "light", LIGHT, seed=1, markers=False)


@pytest.fixture(scope="module")
def quick(light):
    """A provider of that model, a pass of which takes a tenth of the embedded one's time."""
    provider = MLXProvider({"model": str(light), "temperature": 0.0, "max_tokens": 64})
    yield provider
    provider.close()
