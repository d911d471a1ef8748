"""The first process's part of a model: the engine uses it like any, and the others can follow."""

import gc
import random

import pytest
from mlx_lm.utils import load_model

from provider.caches.operations import Forward
from provider.caches.prefix_cache import PrefixCache
from provider.engine.batch import Batch
from provider.engine.sampling import SeededSampler
from provider.runtime.mlx import mx
from tests.provider.engine.test_batch import Scene, prompt, row
from tests.support.mirrors import Mirrors
from tests.support.tiny_models import ARCHITECTURES, write_model


def loaded(folder, name):
    model, _ = load_model(write_model(folder, ARCHITECTURES[name]))
    return model


# Caches in slots, mlx-lm's batched ones, recurrent states in slots.
@pytest.fixture(scope="module", params=["llama", "gemma3", "qwen3_next"])
def model(request, tmp_path_factory):
    return loaded(tmp_path_factory.mktemp("models") / request.param, request.param)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return loaded(tmp_path_factory.mktemp("models") / "llama", "llama")


def come_and_go(scene):
    """Let rows join while others decode, end early, and be removed; return the tokens of some."""
    rng = random.Random(1)
    for key in range(5):
        scene.add(row(key), row(100 + key, tokens=rng.randrange(1, 5)), row(200 + key))
        for _ in range(rng.randrange(2, 6)):
            scene.step(chunk=5)
        scene.batch.remove([200 + key])
        scene.left.pop(200 + key, None)
    tokens = scene.finish(chunk=5)
    return {key: tokens[key] for key in range(5)}


def test_the_followers_do_what_the_leader_does_and_keep_nothing(model):
    mirrors, kept = Mirrors(model), []
    scene = Scene(mirrors.leading)
    scene.batch._keep = lambda _row, make, _tokens: kept.append(make())
    assert come_and_go(scene) == come_and_go(Scene(model))
    assert len(kept) >= 10
    assert all(map(mirrors.same, kept))
    del kept[:], scene
    gc.collect()
    mirrors.catch_up()
    assert len(mirrors.following.caches) == 0


def test_a_removed_row_is_in_no_later_pass_anywhere(llama):
    mirrors = Mirrors(llama)
    scene = Scene(mirrors.leading)
    scene.add(row(0), row(1))
    for _ in range(6):
        scene.step()
    mirrors.catch_up()
    scene.batch.remove([1])
    scene.step()
    (step,) = [one for one in mirrors.catch_up() if isinstance(one, Forward)]
    assert sum(step.counts) == 1


def test_a_parked_row_goes_on_and_its_caches_are_the_same(model):
    expected = Scene(model)
    expected.add(row(3))
    mirrors = Mirrors(model)
    scene = Scene(mirrors.leading)
    scene.add(row(3), row(4))
    for _ in range(8):
        scene.step()
    parked = scene.batch.park(3)
    assert mirrors.same(parked.row.caches)
    scene.tokens[3].append(scene.batch.deliver(parked).token)
    scene.batch.add(parked.row)
    assert scene.finish()[3] == expected.finish()[3]


def test_a_kept_prefix_is_reused_by_all(llama):
    mirrors, prefixes = Mirrors(llama), PrefixCache(1 << 24)
    text = [random.Random(0).randrange(20, 1500) for _ in range(60)]
    scene = Scene(mirrors.leading)
    scene.batch._keep = lambda one, make, n: prefixes.offer("", one.sequence[:n], make)
    scene.add(row(0, text=text))
    scene.finish()
    hit = prefixes.find("", [*text[:40], *prompt(1)])
    assert hit.length == 40
    assert mirrors.same(hit.caches)


def test_seeded_draws_are_those_of_a_whole_model(llama):
    def drawn(model):
        scene = Scene(model)
        scene.add(*(row(key, sampler=SeededSampler(key, 0.8, 0.9, 0.0, 0)) for key in range(3)))
        return scene.finish()

    assert drawn(Mirrors(llama).leading) == drawn(llama)


def test_a_long_pass_has_no_logits_and_a_short_one_has(llama):
    mirrors = Mirrors(llama)
    caches = mirrors.leading.make_cache()
    assert mirrors.leading(mx.array([[20, 21]]), cache=caches) is None
    assert mirrors.leading(mx.array([[22]]), cache=caches).shape[:2] == (1, 1)


def test_a_failed_pass_ends_all_processes(llama):
    mirrors = Mirrors(llama)
    batch = Batch(mirrors.leading, ())
    batch.add(row(0))
    mirrors.leading.model = None
    result = batch.prefill([(0, 2)])
    assert result.failed
    assert mirrors.failures[0].startswith("a forward pass failed")
