"""The model that answers until it is stopped, once for all clients."""

import pytest

from tests.clients.providers import write_endless


@pytest.fixture(scope="session")
def endless(tmp_path_factory):
    """Return the model, and its token that would end an answer."""
    model, end = write_endless(tmp_path_factory.mktemp("endless") / "model")
    yield model, end
    model.close()
