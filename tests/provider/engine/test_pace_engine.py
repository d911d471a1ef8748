"""A long prompt beside a stream, with a model whose passes take as long as a large model's."""

from statistics import median

import pytest

from provider.engine.inbox import SyncInbox
from provider.engine.memory_pool import MemoryPool
from provider.engine.messages import RunRequest
from provider.engine.model import LoadedModel
from provider.engine.run import Run
from provider.engine.run_states import RunState
from provider.engine.sampling import Sampling
from provider.engine.worker import Worker
from provider.models.loading import load
from provider.options import GenerationOptions
from provider.settings import EngineSettings
from tests.support.clock import Clock
from tests.support.tiny_models import LLAMA, write_model

PASS_S = 0.04  # seconds that a pass takes, whatever it reads
TOKEN_S = 0.0001  # seconds more for each token
PROMPT = 8000


class Large:
    """A small model, each forward pass of which takes as if it read many gigabytes of weights.

    It takes that by a clock of its own, so that a busy machine makes no difference.
    """

    def __init__(self, model):
        self.model = model
        self.clock = Clock()
        self.passes = []  # tokens a row

    def __call__(self, tokens, **options):
        self.passes.append(tokens.shape[1])
        self.clock.now += PASS_S + TOKEN_S * tokens.size
        return self.model(tokens, **options)

    def __getattr__(self, name):
        return getattr(self.model, name)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    config = {**LLAMA, "num_hidden_layers": 1, "max_position_embeddings": 16384}
    small = load(write_model(tmp_path_factory.mktemp("model"), config))
    return LoadedModel(
        **{**vars(small), "model": Large(small.model.model), "context_window": 16384}
    )


def submitted(worker, key, prompt, max_tokens):
    options = GenerationOptions(temperature=0.0, max_tokens=max_tokens)
    run = Run(key, "m", RunRequest(prompt, options), SyncInbox())
    worker.runs.add(run)
    worker.submit(run)
    return run


def read(worker, run, clock):
    """Make turns until a prompt is read; return the seconds of each."""
    times = []
    while run.state in (RunState.WAITING, RunState.READING):
        begin = clock.now
        worker.turn()
        times.append(clock.now - begin)
    return times


def test_a_long_prompt_beside_a_stream_takes_few_chunks_and_short_gaps(loaded):
    settings = EngineSettings(
        max_unread=100_000, prefix_cache_bytes=0, warmup=False, few_shapes="off"
    )
    clock, passes = loaded.model.model.clock, loaded.model.model.passes
    memory = MemoryPool(1 << 40)
    worker = Worker("m", lambda: loaded, settings, Sampling(), memory, lambda: None, clock)
    for _ in worker.loading():
        pass
    alone = read(worker, quiet := submitted(worker, 1, [7] * PROMPT, 1), clock)
    worker.cancel(quiet)
    stream = submitted(worker, 2, [5] * 20, 10_000)
    for _ in range(10):
        worker.turn()
    passes.clear()
    beside = read(worker, late := submitted(worker, 3, [9] * PROMPT, 1), clock)
    assert stream.state is RunState.DECODING
    worker.cancel(stream)
    worker.cancel(late)
    worker.free()
    chunks = [n for n in passes if n > 1]
    assert sum(chunks) >= PROMPT - 1
    # In proportion to their tokens, chunks would have to be of the smallest size.
    assert len(chunks) < 40
    assert median(chunks) > 150
    # Twice as long as alone is what the setting says.
    assert sum(beside) < 1.1 * settings.max_prompt_slowdown * sum(alone)
    # The shortest gap that there can be is a pass over a chunk and a decode step.
    shortest = 2 * PASS_S
    assert max(beside) < 1.1 * max(2 * shortest, settings.max_token_gap)
