"""Prefixes survive a restart on disk; damaged and foreign files are ignored."""

import asyncio
import json
import logging
import os
import threading
from array import array

import pytest
from mlx_lm.models.cache import ArraysCache, CacheList, KVCache, save_prompt_cache

from provider import MLXProvider
from provider.caches.prefix_store import PrefixStore
from provider.embedded import MODEL_PATH
from provider.runtime.mlx import mx
from tests.support.damaged_files import DAMAGE, STAYS
from tests.support.servers import eventually
from tests.support.timeouts import TIMEOUT
from tests.support.tiny_models import ARCHITECTURES, write_model

PROMPT = "Tell me a long story about a fox named Zorvan, who lives by the sea."


def caches_of(tokens, layers=2):
    made = [KVCache() for _ in range(layers)]
    for cache in made:
        cache.update_and_fetch(mx.ones((1, 2, tokens, 4)), mx.zeros((1, 2, tokens, 4)))
    return made


def packed(tokens):
    return array("I", tokens).tobytes()


def opened(folder, max_bytes, model):
    """Return a store that knows the files in its folder."""
    made = PrefixStore(folder, max_bytes, model)
    made.flush()
    return made


def written(store, tokens, caches, kind=""):
    """Save caches and wait until their file is written."""
    assert store.save(packed(tokens), caches, kind)
    store.flush()


def loaded(store, entry):
    """Read a file as the engine does; return its caches, None if it is ignored."""
    data = store.read(entry).result()
    return None if data is None else store.load(entry, data)


@pytest.fixture
def store(tmp_path):
    made = PrefixStore(tmp_path, 1 << 30, "a model")
    yield made
    made.wait_closed()


class SlowDisk(PrefixStore):
    """A store that writes nothing until `goes_on` is set."""

    def __init__(self, folder, max_bytes, model):
        self.goes_on = threading.Event()
        super().__init__(folder, max_bytes, model)

    def _write(self, *arguments):
        assert self.goes_on.wait(60)
        super()._write(*arguments)


@pytest.fixture
def slow(tmp_path):
    made = SlowDisk(tmp_path, 1 << 30, "a model")
    yield made
    made.goes_on.set()
    made.wait_closed()


def files(folder):
    return sorted(folder.glob("*/*.safetensors"))


def test_saved_caches_are_found_by_another_store(store, tmp_path):
    written(store, range(20), caches_of(20))
    (entry,) = opened(tmp_path, 1 << 30, "a model")
    assert (entry.length, entry.trimmable, entry.tokens) == (20, True, packed(range(20)))
    again = loaded(store, entry)
    assert [cache.offset for cache in again] == [20, 20]
    assert mx.array_equal(again[0].keys[..., :20, :], mx.ones((1, 2, 20, 4)))


def test_another_model_finds_nothing(store, tmp_path):
    written(store, range(20), caches_of(20))
    assert not len(opened(tmp_path, 1 << 30, "another model"))


def test_a_longer_sequence_replaces_its_prefix(store, tmp_path):
    written(store, range(20), caches_of(20))
    written(store, range(30), caches_of(30))
    assert [entry.length for entry in store] == [30]
    assert len(files(tmp_path)) == 1


def test_the_least_recently_used_file_is_evicted_first_over_all_models(tmp_path):
    first = opened(tmp_path, 1 << 30, "a")
    written(first, range(20), caches_of(20))
    size = files(tmp_path)[0].stat().st_size
    second = opened(tmp_path, int(2.5 * size), "b")
    written(second, range(100, 120), caches_of(20))
    os.utime(files(tmp_path)[0])
    for number, path in enumerate(files(tmp_path)):
        os.utime(path, (number, number))
    oldest = files(tmp_path)[0]
    written(second, range(200, 220), caches_of(20))
    assert not oldest.exists()
    assert len(files(tmp_path)) == 2


def test_caches_that_cannot_be_stored_are_not_written(store, tmp_path):
    written(store, range(20), [CacheList(KVCache(), KVCache())])
    assert not files(tmp_path)


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_a_miss_with_one_warning(store, tmp_path, caplog, damage):
    written(store, range(20), caches_of(20))
    (known,) = store
    damage(known.path)
    with caplog.at_level(logging.WARNING):
        for found in opened(tmp_path, 1 << 30, "a model"):
            assert loaded(store, found) is None
    assert len(caplog.records) == 1
    assert "ignoring the prefix cache file" in caplog.text
    assert loaded(store, known) is None, "it is a miss in a store that was open before, too"
    assert not len(store)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_removed(store, tmp_path, damage):
    written(store, range(20), caches_of(20))
    (entry,) = store
    DAMAGE[damage](entry.path)
    loaded(store, entry)
    assert os.path.lexists(entry.path) == (damage in STAYS)
    written(store, range(20), caches_of(20))
    assert len(store) == (damage != "a folder")


def test_files_that_changed_places_are_misses(store, tmp_path):
    written(store, range(20), caches_of(20))
    written(store, range(100, 120), caches_of(20))
    one, other = store
    one.path.rename(tmp_path / "x")
    other.path.rename(one.path)
    (tmp_path / "x").rename(other.path)
    assert [loaded(store, one), loaded(store, other)] == [None, None]


async def test_damaged_files_change_no_answer(light, tmp_path, caplog):
    prompts = [f"{number} times a fox said {damage}." for number, damage in enumerate(DAMAGE)]
    prompts.append("This prompt's file is left as it is.")

    async def answers(**config):
        provider = MLXProvider({"model": str(light), "temperature": 0.0, "max_tokens": 4, **config})
        try:
            made = [provider.generate_async(prompt) for prompt in prompts]
            return await asyncio.gather(*made)
        finally:
            await provider.aclose()

    texts = [answer.content for answer in await answers(prefix_cache_bytes=0)]
    await answers(prefix_cache_dir=tmp_path)
    left, *others = files(tmp_path)
    for path, damage in zip(others, DAMAGE.values(), strict=True):
        damage(path)
    again = await answers(prefix_cache_dir=tmp_path)
    assert [answer.content for answer in again] == texts
    assert caplog.text.count("ignoring the prefix cache file") == len(DAMAGE)
    assert str(left) not in caplog.text
    assert max(answer.usage["cached_tokens"] for answer in again) > 16


def test_caches_of_another_length_than_the_tokens_are_ignored(store, tmp_path):
    written(store, range(20), caches_of(19))
    (entry,) = store
    assert loaded(store, entry) is None


def test_a_folder_that_cannot_be_written_causes_only_a_warning(tmp_path, caplog):
    (tmp_path / "file").write_text("no folder")
    store = opened(tmp_path / "file", 1 << 30, "a model")
    written(store, range(20), caches_of(20))
    assert not len(store)
    assert "can't" in caplog.text


def test_states_are_kept_too(store, tmp_path):
    state = ArraysCache(2)
    state[0] = mx.ones((1, 3))
    written(store, range(20), [*caches_of(20, 1), state])
    (entry,) = opened(tmp_path, 1 << 30, "a model")
    assert not entry.trimmable
    again = loaded(store, entry)
    assert mx.array_equal(again[1][0], mx.ones((1, 3)))


def test_a_file_is_found_by_its_kind_and_its_tokens(store, tmp_path):
    written(store, range(20), caches_of(20), "a red picture")
    again = opened(tmp_path, 1 << 30, "a model")
    for one in (store, again):
        assert one.longest("a red picture", packed(range(30)))[0] == 20
        assert one.longest("a blue picture", packed(range(30))) is None
        assert one.longest("", packed(range(30))) is None
        assert len(one._indexes) == 1  # what was only asked for is not remembered


def test_saving_never_waits_for_the_disk(slow, tmp_path):
    assert slow.save(packed(range(20)), caches_of(20))
    assert slow.save(packed(range(20)), caches_of(20)), "what is being written is not written twice"
    assert not files(tmp_path)
    assert not len(slow)
    slow.goes_on.set()
    slow.flush()
    assert len(slow) == len(files(tmp_path)) == 1


def test_the_queue_of_writes_is_bounded(slow):
    slow.max_queued = 10
    assert slow.save(packed(range(20)), caches_of(20)), "one entry always may"
    assert not slow.save(packed(range(100, 120)), caches_of(20))
    slow.goes_on.set()
    slow.flush()
    assert slow.save(packed(range(100, 120)), caches_of(20))


def test_queued_writes_are_done_after_the_store_is_closed(slow, tmp_path):
    slow.save(packed(range(20)), caches_of(20))
    slow.close()
    slow.goes_on.set()
    slow.wait_closed()
    assert len(files(tmp_path)) == 1
    assert slow.save(packed(range(100, 120)), caches_of(20)), "there is nothing to try again"
    assert len(files(tmp_path)) == 1


async def test_a_model_is_unloaded_while_the_disk_writes_and_others_go_on(light, slow, tmp_path):
    options = {"temperature": 0.0, "max_tokens": 12}
    models = [f"a={light}", f"b={light}"]
    provider = MLXProvider({**options, "model": models, "close_grace": 0})
    try:
        await provider.generate_async(PROMPT, model="a")
        await provider.generate_async("Hi", model="b")
        leaving = provider._library.find("b")
        leaving.engine._worker.prefixes.store = slow
        await provider.generate_async(PROMPT, model="b")
        unloading = asyncio.create_task(asyncio.to_thread(leaving.unload))
        async with asyncio.timeout(TIMEOUT * 3):
            answers = [await provider.generate_async(PROMPT, model="a") for _ in range(2)]
            while leaving.engine.model is not None:
                await asyncio.sleep(0.01)
        assert all(answer.content for answer in answers)
        assert not files(tmp_path), "the disk was not slow"
        slow.goes_on.set()
        assert await unloading
        assert len(files(tmp_path)) == 1
    finally:
        slow.goes_on.set()
        await provider.aclose()


async def test_what_the_queue_had_no_room_for_is_saved_later(light, slow, tmp_path):
    settings = {
        "model": str(light),
        "max_tokens": 4,
        "temperature": 0.0,
        "prefix_cache_dir": tmp_path,
    }
    provider = MLXProvider(settings)
    try:
        await provider.load()
        prefixes = provider._library.find(None).engine._worker.prefixes
        slow.on_room, slow.max_queued = prefixes.store.on_room, 1
        prefixes.store.close()
        prefixes.store = slow
        prompts = [f"{number} little foxes and a large owl by the sea" for number in range(6)]
        await asyncio.gather(*[provider.generate_async(prompt) for prompt in prompts])
        await eventually(lambda: prefixes.unsaved == len(prompts) - 1)
        slow.goes_on.set()
        await eventually(lambda: len(files(tmp_path)) == len(prompts))
    finally:
        slow.goes_on.set()
        await provider.aclose()


async def test_a_model_saves_while_another_one_streams(tmp_path):
    endless = write_model(tmp_path / "endless", ARCHITECTURES["llama"])
    models = [f"a={endless}", f"b={MODEL_PATH}"]
    provider = MLXProvider({"model": models, "prefix_cache_dir": tmp_path / "kept"})

    async def stream():
        while True:
            await provider.generate_async(PROMPT, model="a", max_tokens=1900, temperature=0.0)

    streaming = asyncio.create_task(stream())
    try:
        await eventually(lambda: provider._library.find("a").engine.busy)
        await provider.generate_async(PROMPT, model="b", max_tokens=4)
        await eventually(lambda: files(tmp_path / "kept"))
        assert not streaming.done()
    finally:
        streaming.cancel()
        await provider.aclose()


def test_mlx_lm_writes_the_header_in_the_expected_form(tmp_path):
    save_prompt_cache(str(tmp_path / "x.safetensors"), caches_of(3), {"format": "f"})
    raw = (tmp_path / "x.safetensors").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    metadata = json.loads(raw[8 : 8 + length])["__metadata__"]
    assert metadata["0.format"] == "f"
    assert {metadata["1.0"], metadata["1.1"]} == {"KVCache"}


@pytest.mark.parametrize("name", ["llama", "gemma3", "qwen3_next"])
async def test_a_restarted_engine_prefills_only_new_tokens(tmp_path, name):
    model = write_model(tmp_path / name, ARCHITECTURES[name])
    config = {"model": str(model), "temperature": 0.0, "max_tokens": 12}
    turns = [{"role": "user", "content": PROMPT}]
    answers = []
    for _ in range(2):
        provider = MLXProvider({**config, "prefix_cache_dir": tmp_path / "kept"})
        try:
            answers.append(await provider.generate_async("", messages=turns))
        finally:
            await provider.aclose()
    first, second = answers
    assert first.usage["cached_tokens"] == 0
    assert second.usage["cached_tokens"] > 16
    assert second.content == first.content


def opened_to_all(root, folder):
    root.chmod(0o777)


def linked_elsewhere(root, folder):
    others = root.parent / "others"
    others.mkdir()
    (others / "weights.safetensors").write_bytes(b"of a model")
    folder.rmdir()
    folder.symlink_to(others)


@pytest.mark.parametrize("spoil", [opened_to_all, linked_elsewhere])
def test_a_folder_that_others_could_have_changed_is_not_used(tmp_path, caplog, spoil):
    root = tmp_path / "prefixes"
    folder = opened(root, 1 << 30, "a model")._folder
    spoil(root, folder)
    store = opened(root, 1 << 30, "a model")
    written(store, range(20), caches_of(20))
    assert (store.max_bytes, len(store)) == (0, 0)
    assert "can't use the prefix cache folder" in caplog.text
    left = [path.name for path in tmp_path.rglob("*.safetensors")]
    assert left == (["weights.safetensors"] if spoil is linked_elsewhere else [])


def test_only_files_in_folders_of_the_store_are_removed_to_make_room(tmp_path):
    weights = tmp_path / "a model" / "weights.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(bytes(1 << 20))
    store = opened(tmp_path, 1 << 19, "a model")
    written(store, range(20), caches_of(20))
    assert weights.exists()
    assert len(store) == 1
