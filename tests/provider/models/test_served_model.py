"""A served model is loaded once, unloaded when it is idle, and can be closed at any time."""

import subprocess
import sys
import threading
import time

import pytest

from provider.engine.engine import EngineClosedError
from provider.engine.memory_pool import MemoryPool
from provider.engine.mlx_thread import MlxThread
from provider.engine.model import LoadProgress
from provider.interface import GenerationError, ModelNotFoundError
from provider.models.gguf.header import read_header
from provider.models.request_builder import Call
from provider.models.served_model import BETWEEN_CALLS_S, ServedModel
from provider.models.source import ModelSource
from provider.options import GenerationOptions
from provider.settings import EngineSettings
from tests.support.gguf_files import gguf_of, split_as_gpt2
from tests.support.tiny_models import QWEN3, write_model


class NeverLoaded(ServedModel):
    """A model whose loading never ends."""

    def _steps(self):
        while True:
            yield LoadProgress(0, 1 << 20)


@pytest.fixture
def serve(light):
    thread, made = MlxThread(), []

    def one(kind=ServedModel, path=str(light), draft=None, **options):
        source = ModelSource("m", path, draft)
        memory = MemoryPool(1 << 34)
        made.append(kind(source, EngineSettings(close_grace=0), thread, memory, **options))
        return made[-1]

    yield one
    for served in made:
        served.close(0)
    thread.close()


def test_a_model_is_loaded_once_for_many_callers(serve):
    served = serve(path=None)
    assert served.loaded() is None
    assert not served.in_use
    first, second = served.ready(), served.ready()
    assert first is second
    assert served.loaded() is None or first.done()
    assert first.result() is served.loaded()
    assert served.in_use
    assert served.info.loaded
    assert served.info.context_window == 8192
    assert (served.info.vision, served.info.tools, served.info.thinking) == (False, True, True)


@pytest.fixture
def read_headers():
    """The paths of GGUF files whose headers are read, on threads that start within the test."""
    paths = []

    def note(frame, event, _argument):
        if event == "call" and frame.f_code is read_header.__code__:
            paths.append(frame.f_locals["path"])

    threading.setprofile(note)
    yield paths
    threading.setprofile(None)


def test_the_header_of_a_gguf_file_is_read_once(serve, tmp_path, read_headers):
    folder = split_as_gpt2(write_model(tmp_path / "folder", QWEN3))
    path = gguf_of(folder, tmp_path / "model.gguf", "qwen3")
    draft = gguf_of(folder, tmp_path / "draft.gguf", "qwen3")
    serve(path=str(path), draft=str(draft)).ready().result()
    assert read_headers == [path, draft]


def test_a_model_is_unloaded_and_loaded_again(serve):
    served = serve()
    before = served.ready().result()
    engine = served.engine
    assert served.unload()
    assert served.unloaded
    assert engine.closed
    assert not served.info.loaded
    assert served.info.context_window == 8192, "what is known of it is forgotten"
    assert not served.unload(), "there is nothing to unload"
    assert served.ready().result() is not before
    assert served.engine is not engine


def test_pinned_and_unloaded_models_are_not_unloaded(serve):
    assert not serve().unload()
    pinned = serve(pinned=True)
    pinned.ready().result()
    assert not pinned.unload()


def test_a_loading_that_failed_is_tried_again(serve, tmp_path):
    served = serve(path=str(tmp_path / "nowhere"))
    for _ in range(2):
        failing = served.ready()
        with pytest.raises(ModelNotFoundError):
            failing.result()
        assert served.loading_failed
        assert not served.in_use


NESTED = 25  # loops, more than Python compiles


def test_a_model_whose_template_cannot_be_compiled_leaves_no_weights_in_memory(serve, tmp_path):
    path = write_model(tmp_path / "model", QWEN3)
    loops = (f"{{% for a{n} in messages %}}" for n in range(NESTED))
    template = "".join(loops) + "{% endfor %}" * NESTED
    (path / "chat_template.jinja").write_text(template)
    served = serve(path=str(path))
    for _ in range(2):
        with pytest.raises(SyntaxError):
            served.ready().result()
        assert served.engine.model is None
        assert served._memory.held_by_others(None) == 0


def test_a_closed_model_accepts_no_calls(serve):
    served = serve()
    builder, asked = served.ready().result(), Call("Hi", None, [], [], GenerationOptions())
    served.close(0)
    assert served.closed
    for call in (served.ready, served.refuse_if_closed, lambda: served.build(builder, asked)):
        with pytest.raises(EngineClosedError):
            call()


def test_closing_does_not_wait_for_a_loading(serve):
    served = serve(NeverLoaded)
    told = threading.Event()
    served.watch(lambda _progress: told.set())
    loading = served.ready()
    assert told.wait(30)
    closing = threading.Thread(target=served.close, args=(30,))
    closing.start()
    closing.join(30)
    left = closing.is_alive()
    if left:
        served.engine.close(0)  # lets the others be closed
    assert not left
    with pytest.raises(GenerationError, match="the provider was closed"):
        loading.result()


def test_callers_wait_while_a_model_makes_way(serve):
    served = serve()
    served._memory.stay_s = 0
    builder = served.ready().result()
    assert served.make_way()
    waiting = served.ready()
    assert served.ready_now() is None
    assert served.info.loaded, "it is there still"
    assert not waiting.done()
    served.call_off()
    assert waiting.result() is builder is served.ready_now()


def test_a_model_that_made_way_is_loaded_again_for_waiting_callers(serve):
    served = serve()
    served._memory.stay_s = 0
    before = served.ready().result()
    assert served.make_way()
    waiting = served.ready()
    assert served.unload()
    assert waiting.result() is served.loaded() is not before
    served.call_off()
    assert served.ready_now() is waiting.result()


def test_a_model_that_must_stay_does_not_make_way(serve):
    served = serve()
    assert not served.make_way(), "it is not loaded"
    served.ready().result()
    assert not served.make_way(), "it has only just been loaded"
    pinned = serve(pinned=True)
    pinned._memory.stay_s = 0
    pinned.ready().result()
    assert not pinned.make_way()


def test_closing_fails_callers_that_wait_for_a_model_making_way(serve):
    served = serve()
    served._memory.stay_s = 0
    served.ready().result()
    assert served.make_way()
    waiting = served.ready()
    served.close(0)
    with pytest.raises(EngineClosedError):
        waiting.result()


def test_a_model_is_in_demand_shortly_after_it_was_loaded_and_used(serve):
    served = serve()
    served.ready().result()
    served.last_used = time.monotonic() + 60
    assert served.in_demand
    served._memory.stay_s = 0
    assert not served.in_demand
    served._memory.stay_s = 1000
    assert served.in_demand
    served.last_used = time.monotonic() - BETWEEN_CALLS_S
    assert not served.in_demand


LAST_FILE = """
import asyncio, os, resource
from provider import MLXProvider

async def ask():
    provider = MLXProvider()
    await provider.load()
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (os.dup(0) + 1, limit[1]))
    print((await provider.generate_async("Count from 3 to 5", max_tokens=20)).content)
    resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    await provider.aclose()

asyncio.run(ask())
"""


def test_the_first_prompt_after_loading_opens_no_file():
    done = subprocess.run(
        [sys.executable, "-c", LAST_FILE], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr[-300:]) == ("3, 4, 5.\n", "")
