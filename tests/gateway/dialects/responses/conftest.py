"""One provider with the model in the package for all tests of Responses."""

import pytest

from provider import MLXProvider


@pytest.fixture(scope="package")
def provider():
    provider = MLXProvider({"temperature": 0.0, "max_tokens": 32})
    yield provider
    provider.close()
