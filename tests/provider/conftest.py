"""One provider with the embedded model for all tests of a module, which loads quickly."""

import pytest

from provider import MLXProvider


@pytest.fixture(scope="module")
def provider():
    provider = MLXProvider({"temperature": 0.0, "max_tokens": 64})
    yield provider
    provider.close()
