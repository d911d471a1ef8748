"""Several models in one process: by name, on demand, within a memory limit, with adapters."""

import asyncio
import gc
import json
import logging
import sys
import threading
import time

import pytest
from mlx.utils import tree_flatten
from mlx_lm.tuner.utils import linear_to_lora_layers
from mlx_lm.utils import load_model

from provider import MLXProvider
from provider.embedded import MODEL_PATH
from provider.engine import admission
from provider.engine.engine import Engine
from provider.interface import (
    InvalidParameterError,
    MemoryExceededError,
    ModelLoading,
    ModelLoadingError,
    ModelNotFoundError,
    ResourceExceededError,
    UnsupportedModelError,
)
from provider.models.library import sources_of
from provider.models.loading import load
from provider.models.source import ModelSource
from provider.runtime.mlx import active_memory, mx, prepares_kernels
from tests.support.timeouts import TIMEOUT
from tests.support.tiny_models import ARCHITECTURES, LLAMA, write_model

WEIGHTS = load(MODEL_PATH).weights
SAY = {"temperature": 0.0, "max_tokens": 12}


@pytest.fixture(scope="module")
def weights(light):
    """The bytes of the light model's weights."""
    return load(light).weights


@pytest.fixture
def made():
    providers = []

    def make(**config):
        providers.append(MLXProvider({**SAY, **config}))
        return providers[-1]

    yield make
    for provider in providers:
        provider.close(0)


async def say(provider, model=None, prompt="Tell me a story", **options):
    return await provider.generate_async(prompt, model=model, **options)


def loaded(provider):
    return [info.id for info in provider.models() if info.loaded]


async def until(condition):
    async with asyncio.timeout(TIMEOUT * 2):
        while not condition():
            await asyncio.sleep(0.01)


def write_adapter(folder, model_path, *, scale=20.0, seed=1):
    """Write a LoRA adapter of random weights, in the layout that mlx-lm trains."""
    model, _ = load_model(model_path)
    parameters = {"rank": 4, "scale": scale, "dropout": 0.0}
    model.freeze()
    linear_to_lora_layers(model, 2, parameters)
    key = mx.random.key(seed)
    weights = {
        name: 0.3 * mx.random.normal(array.shape, key=key)
        for name, array in tree_flatten(model.trainable_parameters())
    }
    folder.mkdir()
    mx.save_safetensors(str(folder / "adapters.safetensors"), weights)
    config = {"fine_tune_type": "lora", "num_layers": 2, "lora_parameters": parameters}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


# Names. -----------------------------------------------------------------------------------------


def test_models_and_adapters_are_given_as_texts():
    sources = sources_of(["a=owner/one", "owner/two", None], ["p=a:/tmp/p"], "draft")
    assert sources == [
        ModelSource("a", "owner/one", "draft"),
        ModelSource("owner/two", "owner/two"),
        ModelSource("embedded", None),
        ModelSource("p", "owner/one", None, "a", "/tmp/p"),
    ]


def test_names_may_contain_colons_and_paths_equals_signs():
    sources = sources_of(["q=x=y", "q:4=z"], ["p=q:4:/tmp/p", "o=q:/tmp/a:b"])
    assert [(source.name, source.path) for source in sources[:2]] == [("q", "x=y"), ("q:4", "z")]
    assert [(source.base, source.adapter) for source in sources[2:]] == [
        ("q:4", "/tmp/p"),
        ("q", "/tmp/a:b"),
    ]


@pytest.mark.parametrize(
    ("config", "parameter"),
    [
        ({"model": ["a=x", "a=y"]}, "model"),
        ({"adapter": ["p"]}, "adapter"),
        ({"adapter": ["p=nobody:/tmp"]}, "adapter"),
        ({"adapter": ["p=embedded:/tmp", "q=p:/tmp"]}, "adapter"),
        ({"pin": ["nobody"]}, "pin"),
    ],
)
def test_an_invalid_model_setting_is_refused(config, parameter):
    with pytest.raises(InvalidParameterError) as caught:
        MLXProvider(config)
    assert caught.value.parameter == parameter


async def test_a_call_names_its_model_and_the_first_is_the_default(made, tmp_path):
    other = write_model(tmp_path / "other", LLAMA)
    provider = made(model=["embedded", f"second={other}"])
    assert [info.id for info in provider.models()] == ["embedded", "second"]
    assert loaded(provider) == []
    first = await say(provider)
    assert loaded(provider) == ["embedded"]
    second = await say(provider, "second")
    assert (first.model, second.model) == ("embedded", "second")
    assert first.content != second.content
    assert (await say(provider, str(other))).content == second.content
    assert (await say(provider, "embedded")).content == first.content
    with pytest.raises(UnsupportedModelError, match="`nobody` is not served; `embedded`, `second`"):
        await say(provider, "nobody")
    with pytest.raises(UnsupportedModelError):
        await say(provider, str(MODEL_PATH))


async def test_a_call_may_name_any_model_if_that_is_allowed(made, tmp_path):
    other = write_model(tmp_path / "other", LLAMA)
    provider = made(allow_any_model=True)
    assert (await say(provider, str(other))).content
    for number in range(3):
        with pytest.raises(ModelNotFoundError):
            await say(provider, f"no such {number}")
    assert (await say(provider, str(other))).content
    assert len(provider.models()) <= 3, "names that nobody has pile up"


def test_models_can_be_listed_while_other_threads_name_new_ones(made):
    provider = made(allow_any_model=True)
    naming = threading.Event()
    problems = []

    def listing():
        while not naming.is_set():
            try:
                provider.models()
                provider.statistics()
            except RuntimeError as error:
                problems.append(error)
                return

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    threads = [threading.Thread(target=listing) for _ in range(2)]
    try:
        for thread in threads:
            thread.start()
        for number in range(100):
            provider._library.find(f"name {number}")
    finally:
        naming.set()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(before)
    assert problems == []


# Together. --------------------------------------------------------------------------------------


async def test_runs_of_several_models_are_the_same_together_as_alone(made, tmp_path):
    before = set(threading.enumerate())
    folders = {name: write_model(tmp_path / name, ARCHITECTURES[name]) for name in ARCHITECTURES}
    provider = made(model=["embedded", *(f"{name}={folder}" for name, folder in folders.items())])
    names = ["embedded", *folders]
    alone = {name: (await say(provider, name, max_tokens=24)).content for name in names}
    together = await asyncio.gather(
        *(say(provider, name, max_tokens=24) for name in names for _ in range(2))
    )
    assert [answer.content for answer in together] == [alone[n] for n in names for _ in range(2)]
    threads = [thread.name for thread in set(threading.enumerate()) - before]
    assert len([name for name in threads if name.startswith("mlx-engine")]) == 1


async def test_a_stream_goes_on_while_another_model_is_loaded_and_used(made, tmp_path):
    other = write_model(tmp_path / "other", LLAMA)
    provider = made(model=["embedded", f"other={other}"])
    await say(provider)
    stream = await provider.generate_async("Count from 3 to 40", stream=True, max_tokens=100)
    during = []
    using = None
    async for delta in stream:
        if using is None:
            using = asyncio.create_task(say(provider, "other"))
        during.append(bool(delta.content) and not using.done())
    assert sum(during) > 5, "the stream stood still while the other was loaded"
    assert (await using).usage["completion_tokens"] == 12


async def test_a_stream_with_events_has_the_progress_of_loading(made, tmp_path):
    other = write_model(tmp_path / "other", LLAMA)
    provider = made(model=["embedded", f"other={other}"])
    stream = await provider.generate_async("Hi", stream=True, events=True, model="other")
    responses = [response async for response in stream]
    told = [r.raw_response for r in responses if isinstance(r.raw_response, ModelLoading)]
    assert told[0] == ModelLoading("other", 0, 0)
    bytes_told = [one.done for one in told if not one.warming_up]
    assert bytes_told[-1] == load(other).weights
    assert bytes_told == sorted(bytes_told)
    assert told[-1].warming_up is prepares_kernels()
    assert responses[-1].finish_reason
    again = await provider.generate_async("Hi", stream=True, events=True, model="other")
    assert not [r async for r in again if isinstance(r.raw_response, ModelLoading)]


async def test_the_loading_at_the_start_is_told_to_whoever_watches(made):
    provider, told = made(model=["embedded"]), []
    provider.watch_loading(told.append)
    await provider.load()
    assert {one.model for one in told} == {"embedded"}
    assert [one.warming_up for one in told] == sorted(one.warming_up for one in told)
    assert told[-1].warming_up is prepares_kernels()


async def test_a_model_that_cannot_be_loaded_fails_only_its_own_calls(made, tmp_path):
    provider = made(model=["embedded", f"missing={tmp_path / 'missing'}"])
    with pytest.raises(ModelNotFoundError):
        await say(provider, "missing")
    stream = await provider.generate_async("Hi", stream=True, events=True, model="missing")
    with pytest.raises(ModelNotFoundError):
        [response async for response in stream]
    assert (await say(provider)).content
    assert provider.health().ready


async def test_a_loading_that_fails_is_not_tried_again_for_those_who_waited_for_it(made, caplog):
    caplog.set_level(logging.INFO, "provider.models.served_model")
    provider = made(model=["embedded", "missing=/nowhere"])
    calls = [
        await provider.generate_async("Hi", stream=True, events=True, model="missing")
        for _ in range(3)
    ]
    for call in calls:
        assert isinstance((await anext(call)).raw_response, ModelLoading)
        with pytest.raises(ModelNotFoundError):
            [response async for response in call]
    begun = [message for message in caplog.messages if message.startswith("mlx on")]
    assert len(begun) == 3, "each call begins one, as the one before has failed"


async def test_cancelling_a_call_does_not_stop_the_loading(made):
    provider = made(model=["embedded", f"other={MODEL_PATH}"])
    stream = await provider.generate_async("Hi", stream=True, events=True, model="other")
    assert isinstance((await anext(stream)).raw_response, ModelLoading)
    await stream.aclose()
    await until(lambda: loaded(provider) == ["other"])


# Memory. ----------------------------------------------------------------------------------------


async def test_the_least_recently_used_model_is_unloaded_if_memory_is_short(made, light, weights):
    models = [f"{name}={light}" for name in "abc"]
    provider = made(model=models, memory_bytes=int(2.6 * weights))
    expected = (await say(provider, "a")).content
    await say(provider, "b")
    await say(provider, "a")
    assert (await say(provider, "c")).content == expected
    assert loaded(provider) == ["a", "c"]
    assert (await say(provider, "b")).content == expected
    assert loaded(provider) == ["b", "c"]
    statistics = provider.statistics()
    assert statistics.finished == 5
    assert statistics.weights_bytes == 2 * weights


async def test_a_pinned_model_is_never_unloaded(made, light, weights):
    models = [f"{name}={light}" for name in "abc"]
    provider = made(model=models, pin=["a"], memory_bytes=int(2.6 * weights))
    for name in "abc":
        await say(provider, name)
    assert loaded(provider) == ["a", "c"]


async def test_models_in_use_are_not_unloaded_and_other_calls_get_a_retry_time(
    made, light, weights
):
    models = [f"{name}={light}" for name in "ab"]
    provider = made(model=models, memory_bytes=int(1.8 * weights), max_unread=8)
    provider._library._memory.wait_s = 0.6
    stream = await provider.generate_async("Count from 3 to 40", stream=True, max_tokens=200)
    await anext(stream)
    with pytest.raises(ResourceExceededError) as caught:
        await say(provider, "b")
    assert caught.value.details["retry_after"] > 0
    assert len([delta async for delta in stream]) > 50
    assert (await say(provider, "b")).content
    assert loaded(provider) == ["b"]


async def test_a_model_beside_steady_traffic_on_another_gets_its_turn(made, light, weights):
    provider = made(model=[f"{name}={light}" for name in "ab"], memory_bytes=int(1.9 * weights))
    provider._library._memory.stay_s = 0.05
    expected = (await say(provider, "a", max_tokens=30)).content
    answered = {"a": 0, "b": 0}

    async def keep_asking(name, times):
        for _ in range(times):
            assert (await say(provider, name, max_tokens=30)).content == expected
            answered[name] += 1

    asking = [asyncio.create_task(keep_asking("a", 1000)) for _ in range(4)]
    try:
        await until(lambda: answered["a"] >= 4)
        async with asyncio.timeout(TIMEOUT * 3):
            await keep_asking("b", 2)
        assert not any(task.done() for task in asking)
        before = answered["a"]
        await until(lambda: answered["a"] > before)
    finally:
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)


async def test_a_model_in_demand_is_not_unloaded_between_two_calls(made, light, weights):
    models = [f"{name}={light}" for name in "ab"]
    provider = made(model=models, memory_bytes=int(1.9 * weights))
    provider._library._memory.wait_s = 0.0
    await say(provider, "a")
    provider._library.find("a").last_used = time.monotonic() + 60  # just now, on a slow machine too
    with pytest.raises(ResourceExceededError):
        await say(provider, "b")
    assert loaded(provider) == ["a"]
    provider._library.find("a").last_used -= 120
    assert (await say(provider, "b")).content
    assert loaded(provider) == ["b"]


async def test_a_model_that_need_not_make_way_accepts_calls_again(made, light, weights):
    models = [f"{name}={light}" for name in "ab"]
    provider = made(model=models, memory_bytes=int(1.9 * weights), max_unread=2)
    memory = provider._library._memory
    memory.stay_s, memory.wait_s = 0.0, 0.3
    stream = await provider.generate_async("Count from 3 to 40", model="a", stream=True)
    await anext(stream)
    asking = asyncio.create_task(say(provider, "b"))
    await until(lambda: provider._library.find("a").makes_way)
    waiting = asyncio.create_task(say(provider, "a"))
    assert provider.health().ready
    with pytest.raises(ResourceExceededError):
        await asking
    assert (await waiting).content, "who came while it made way was forgotten"
    assert loaded(provider) == ["a"]
    await stream.aclose()


async def test_a_model_that_can_never_fit_is_refused_with_both_sizes(made):
    provider = made(memory_bytes=WEIGHTS // 2)
    with pytest.raises(MemoryExceededError) as caught:
        await say(provider)
    assert (caught.value.required_memory, caught.value.available_memory) == (WEIGHTS, WEIGHTS // 2)


async def test_a_run_gets_the_memory_of_an_idle_model(made):
    models = [f"{name}={MODEL_PATH}" for name in "ab"]
    roomy = made()
    await say(roomy)
    short = roomy.engine._worker._admission.budget.need(200)
    provider = made(model=models, memory_bytes=2 * WEIGHTS + short, prefix_cache_bytes=0)
    await say(provider, "a")
    await say(provider, "b")
    assert loaded(provider) == ["a", "b"]
    answer = await say(provider, "b", prompt="Count from 3 to 40", max_tokens=900)
    assert answer.content.startswith("3, 4, 5")
    assert loaded(provider) == ["b"]


async def test_an_idle_model_is_unloaded_and_loaded_again_by_the_next_call(made):
    gc.collect()
    before = active_memory()
    provider = made(idle_unload=0.2)
    expected = (await say(provider)).content
    await until(lambda: loaded(provider) == [])

    def freed():  # by the MLX thread, a moment after it is no longer listed
        gc.collect()
        return active_memory() < before + (1 << 20)

    await until(freed)
    assert (await say(provider)).content == expected
    assert provider.statistics().finished == 2


async def test_a_stream_that_has_not_begun_loads_its_model_again(made, light):
    provider = made(model=str(light), idle_unload=0.1)
    stream = await provider.generate_async("Tell me a story", stream=True)
    await until(lambda: loaded(provider) == [])
    assert "".join([delta.content async for delta in stream])


async def test_no_answer_is_lost_when_models_are_unloaded_under_load(made, light, weights):
    models = [f"{name}={light}" for name in "abc"]
    provider = made(model=models, memory_bytes=int(2.6 * weights), idle_unload=0.05)
    provider._library._memory.stay_s = 0.3
    expected = (await say(provider, "a")).content
    answered = dict.fromkeys("abc", 0)

    async def keep_asking(name):
        while min(answered.values()) < 2:
            try:
                assert (await say(provider, name)).content == expected
                answered[name] += 1
            except ResourceExceededError:
                await asyncio.sleep(0.02)
            await asyncio.sleep(0.03)

    async with asyncio.timeout(TIMEOUT * 3):
        await asyncio.gather(*(keep_asking(name) for name in answered))


# Adapters. --------------------------------------------------------------------------------------


async def test_an_adapter_is_a_model_of_its_own_that_shares_the_weights(
    made, tmp_path, light, weights
):
    folder = write_adapter(tmp_path / "adapter", light)
    provider = made(model=f"base={light}", adapter=f"odd=base:{folder}")
    base = await say(provider)
    odd = await say(provider, "odd")
    assert odd.model == "odd"
    assert odd.content != base.content
    assert (await say(provider)).content == base.content
    whole = load(light, adapter=folder)
    assert provider.statistics().weights_bytes < weights + (whole.weights - weights) + 4096
    assert provider.models()[1].base == "base"


async def test_a_base_stays_as_long_as_its_adapter_is_loaded(made, tmp_path, light, weights):
    folder = write_adapter(tmp_path / "adapter", light)
    models = [f"base={light}", f"other={light}"]
    provider = made(model=models, adapter=[f"odd=base:{folder}"], memory_bytes=int(1.9 * weights))
    expected = (await say(provider, "odd")).content
    assert loaded(provider) == ["base", "odd"]
    await say(provider, "other")
    assert loaded(provider) == ["other"]
    assert (await say(provider, "odd")).content == expected


async def test_an_invalid_adapter_is_refused(made, tmp_path, light):
    (tmp_path / "empty").mkdir()
    provider = made(model=f"base={light}", adapter=[f"odd=base:{tmp_path / 'empty'}"])
    with pytest.raises(
        ModelLoadingError, match=r"is not an adapter: it has no adapter_config\.json"
    ):
        await say(provider, "odd")
    assert (await say(provider)).content


# What can't be, and what is counted. -------------------------------------------------------------


async def room_for(made, light, tokens, models):
    """Return a memory limit for weights and the KV cache of one run of this many tokens."""
    provider = made(model=str(light))
    await say(provider)
    engine = provider.engine
    return models * load(light).weights + engine._worker._admission.budget.need(tokens)


async def test_a_run_that_never_fits_beside_a_pinned_model_is_told_and_holds_up_nobody(
    made, monkeypatch, light
):
    monkeypatch.setattr(admission, "RETRY_AFTER_S", 0.5)
    provider = made(
        model=[f"a={light}", f"b={light}"],
        pin=["a"],
        memory_bytes=await room_for(made, light, 300, 2),
        prefix_cache_bytes=0,
    )
    await provider.load()
    long = asyncio.create_task(say(provider, "b", "Count from 3 to 40", max_tokens=900))
    await until(lambda: provider.statistics().waiting)
    behind = asyncio.create_task(say(provider, "b", max_tokens=5))
    async with asyncio.timeout(TIMEOUT * 3):
        with pytest.raises(ResourceExceededError, match="do not fit beside the models") as caught:
            await long
        assert (await behind).content
    assert caught.value.details["retry_after"] > 0


async def test_models_whose_runs_wait_for_each_other_are_not_deadlocked(made, monkeypatch, light):
    monkeypatch.setattr(admission, "RETRY_AFTER_S", 0.5)
    provider = made(
        model=[f"a={light}", f"b={light}"],
        memory_bytes=await room_for(made, light, 300, 2),
        prefix_cache_bytes=0,
    )
    short = [say(provider, name, max_tokens=5) for name in "ab"]
    await asyncio.gather(*short)
    longs = [say(provider, name, "Count from 3 to 40", max_tokens=900) for name in "ab"]
    async with asyncio.timeout(TIMEOUT * 3):
        ends = await asyncio.gather(*longs, return_exceptions=True)
    assert all(isinstance(end, ResourceExceededError) or end.content for end in ends)
    assert (await say(provider)).content


async def test_unknown_names_leave_no_models_behind(made):
    provider = made(allow_any_model=True)
    names = [f"no such {n}" for n in range(20)]
    for name in [*names, "~nosuchuser/x", "x" * 300, "/" + "y" * 4000, "a\0/b"]:
        with pytest.raises(ModelNotFoundError):
            await say(provider, name)
    gc.collect()
    assert len(provider.models()) == 2  # the last is kept until the next
    assert sum(isinstance(thing, Engine) for thing in gc.get_objects()) < 20


async def test_counters_keep_the_counts_of_forgotten_models(made, tmp_path):
    folder = write_model(tmp_path / "other", LLAMA)
    provider = made(allow_any_model=True, idle_unload=0.1)
    await say(provider, str(folder))
    await until(lambda: not loaded(provider))
    (folder / "config.json").unlink()
    for name in (str(folder), "no such model"):
        with pytest.raises((ModelLoadingError, ModelNotFoundError)):
            await say(provider, name)
    assert str(folder) not in [info.id for info in provider.models()]
    assert provider.statistics().finished == 1


async def test_a_model_that_was_unloaded_because_it_was_idle_is_ready(made, light):
    provider = made(model=str(light), idle_unload=0.1)
    assert not provider.health().ready
    await provider.load()
    await until(lambda: not loaded(provider))
    assert provider.health().ready
