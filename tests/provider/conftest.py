"""The embedded model behind one provider for all tests of a module: loading it is quick, once."""

import pytest

from provider import MLXProvider


@pytest.fixture(scope="module")
def provider():
    provider = MLXProvider({"temperature": 0.0, "max_tokens": 64})
    yield provider
    provider.close()
