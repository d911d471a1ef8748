"""One provider with SmolLM2 for all tests, and the same weights for mlx-lm's own loop."""

import pytest

from provider import MLXProvider
from provider.formats.chat_template import ChatTemplate
from provider.inputs.messages import conversation
from provider.models.loading import load
from tests.support.smollm2 import MODEL

TOKENS = 20
PLENTY = 1 << 40  # bytes


@pytest.fixture(scope="session")
def model():
    if not MODEL.exists():
        pytest.skip("no model: `make test-real` fetches it")
    return MODEL


@pytest.fixture(scope="session")
def provider(model):
    provider = MLXProvider({"model": str(model), "temperature": 0.0, "max_tokens": TOKENS})
    yield provider
    provider.close()


class Reference:
    """What mlx-lm's own loop makes of a prompt, greedy, one prompt at a time."""

    def __init__(self, path):
        self.loaded = load(path, dense_room=PLENTY)
        self.template = ChatTemplate(self.loaded.tokenizer)
        self._texts = {}

    def tokens(self, prompt=None, messages=None):
        return self.template.tokens(conversation(prompt, None, messages), [])

    def text(self, prompt=None, messages=None):
        from mlx_lm.generate import stream_generate  # here, since provider must import mlx first
        from mlx_lm.sample_utils import make_sampler

        key = prompt or str(messages)
        if key not in self._texts:
            answers = stream_generate(
                self.loaded.model,
                self.loaded.tokenizer,
                self.tokens(prompt, messages),
                max_tokens=TOKENS,
                sampler=make_sampler(0.0),
            )
            self._texts[key] = "".join(answer.text for answer in answers)
        return self._texts[key]


@pytest.fixture(scope="session")
def reference(model):
    return Reference(model)
