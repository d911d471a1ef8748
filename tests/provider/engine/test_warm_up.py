"""The passes of the first requests are made at the loading, where the first ones are slow."""

import logging

import pytest

from provider.caches.kinds import Batching
from provider.engine.batch import Batch
from provider.engine.rows import Row
from provider.engine.shapes import ANY_SHAPE, LARGEST, STEP, Shapes, Timing
from provider.engine.warm_up import BUDGET_S, WarmUp
from provider.runtime.mlx import mx
from provider.runtime.mlx_lm import KVCache, greedy_sampler

FEW = Shapes(STEP)
SLOWER = Timing(64, 0.09, 0.01)  # a pass of a new shape, which was slower at first
VOCABULARY = 64


class Device:
    """A model that computes nothing, and a clock: the first pass of a shape takes `new_s` longer.

    A decode step has the shape `(rows, 1)`, a pass over prompts `(rows, width, offset)`. Passes
    whose numbers are in `slowed` take five times as long as without others.
    """

    layers = (None,)

    def __init__(self, new_s, slowed=()):
        self.new_s = new_s
        self.slowed = slowed
        self.passes = 0
        self.pass_s = 0.001
        self.now = 0.0
        self.seen = {}

    def modules(self):
        return []

    def make_cache(self):
        return [KVCache()]

    def __call__(self, tokens, cache):
        (rows, width), offset = tokens.shape, cache[0].offset
        shape = (rows, width, offset if isinstance(offset, int) else offset.tolist()[0])
        shape = shape if width > 1 else (rows, 1)
        seconds = self.pass_s + (0.0 if shape in self.seen else self.new_s)
        self.now += seconds * (5 if self.passes in self.slowed else 1)
        self.passes += 1
        self.seen.setdefault(shape, self.now)
        keys = mx.zeros((rows, 1, width, 1))
        cache[0].update_and_fetch(keys, keys)
        return mx.zeros((rows, width, VOCABULARY))


def warm_up_of(
    device, has_room=lambda rows, tokens: True, max_batch=8, window=16384, timed=lambda *_: None
):
    return WarmUp(
        lambda shapes: Batch(device, (), shapes=shapes),
        has_room,
        vocabulary=VOCABULARY,
        window=window,
        max_batch=max_batch,
        timed=timed,
        clock=lambda: device.now,
    )


def result_of(steps):
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


@pytest.mark.parametrize(("new_s", "few"), [(0.0, False), (0.002, False), (0.08, True)])
def test_whether_new_shapes_are_dear_is_measured(new_s, few):
    device = Device(new_s)
    shapes = result_of(warm_up_of(device).measuring([Timing(1, 0.01, 0.01), SLOWER]))
    assert shapes.few is few
    assert len(device.seen) == 2


@pytest.mark.parametrize("slowed", [1, 2, 4, 5])
def test_new_shapes_are_dear_although_others_slowed_a_repeated_pass(slowed):
    device = Device(0.08, {slowed})
    device.pass_s = 0.03
    shapes = result_of(warm_up_of(device).measuring([Timing(1, 0.01, 0.01), SLOWER]))
    assert shapes.few


@pytest.mark.parametrize("again", [Timing(16, 0.02, 0.02), Timing(16, 2.1, 2.0)])
def test_nothing_more_is_measured_where_a_new_shape_was_no_slower(again):
    device = Device(0.08)
    assert result_of(warm_up_of(device).measuring([SLOWER, again])) is ANY_SHAPE
    assert not device.seen


def test_where_nothing_is_dear_it_ends_after_two_passes_of_each_sort():
    device = Device(0.0)
    warm_up = warm_up_of(device)
    steps = list(warm_up.steps(ANY_SHAPE))
    assert len(steps) == warm_up.passes == 4
    assert {shape[0] for shape in device.seen if shape[1] == 1} == {1, 8, 4, 2}


def test_where_new_shapes_are_dear_all_that_come_first_are_made():
    device = Device(0.08)
    warm_up = warm_up_of(device, max_batch=5)
    steps = list(warm_up.steps(FEW))
    assert {shape[0] for shape in device.seen if shape[1] == 1} == {5, 4, 2, 1}
    alone = {shape[1:] for shape in device.seen if shape[0] == 1}
    assert {(1 << n, 0) for n in range(5, 12)} <= alone
    assert {(256, 256), (512, 512), (32, 2048), (LARGEST, LARGEST)} <= alone
    assert {(4, 32, 0), (2, 128, 0), (5, 64, 0)} <= set(device.seen)
    done, total = zip(*steps, strict=True)
    assert list(done) == list(range(1, len(steps) + 1))
    assert len(set(total)) == 1
    assert total[0] >= done[-1] > 30


def test_the_time_of_each_shape_that_is_known_now_is_handed_on():
    device, found = Device(0.08), {}

    def timed(tokens, done, seconds, rows):
        found[tokens, done, rows] = seconds

    list(warm_up_of(device, timed=timed).steps(FEW))
    assert {(32, 0, 1), (64, 0, 2), (512, 1024, 1)} <= set(found)
    assert max(found.values()) == pytest.approx(device.pass_s)


def test_a_prompt_meets_no_new_shape_after_it():
    device = Device(0.08)
    list(warm_up_of(device).steps(FEW))
    begun = dict(device.seen)
    batch = Batch(device, (), shapes=FEW)
    for key, length in enumerate((7, 40, 100, 300, 1000)):
        left = batch.add(Row(key, [5] * length, length, 1, greedy_sampler))
        while left:
            n = FEW.tokens(length - 1 - left, left, ends=True)
            (chunk,) = batch.prefill([(key, n)]).chunks
            left = chunk.left
        batch.decode()
        batch.collect()
    assert device.seen == begun


def test_steps_that_would_take_long_are_left_out():
    device = Device(0.0)
    device.pass_s = 0.3
    list(warm_up_of(device, max_batch=64).steps(ANY_SHAPE))
    assert {shape[0] for shape in device.seen if shape[1] == 1} == {1, 2}


def test_it_ends_when_its_time_is_over():
    device = Device(BUDGET_S / 5)
    steps = list(warm_up_of(device).steps(FEW))
    assert 2 <= len(steps) <= 6
    assert device.now < 2 * BUDGET_S


def test_what_finds_no_memory_or_no_place_in_the_context_is_left_out():
    device = Device(0.08)
    asked = []

    def has_room(rows, tokens):
        asked.append((rows, tokens))
        return rows * tokens <= 600

    list(warm_up_of(device, has_room, window=300).steps(FEW))
    assert max(rows * tokens for rows, tokens in asked) > 600
    assert max(shape[-1] + shape[1] for shape in device.seen if len(shape) == 3) <= 300
    assert result_of(warm_up_of(device, lambda *_: False).measuring([])) is ANY_SHAPE


def test_a_model_whose_rows_cannot_share_a_pass_is_warmed_up_alone():
    device = Device(0.08)

    def alone(shapes):
        batch = Batch(device, (), shapes=shapes)
        batch._batching = Batching.ALONE
        return batch

    warm_up = warm_up_of(device)
    warm_up._new_batch = alone
    list(warm_up.steps(FEW))
    assert {shape[0] for shape in device.seen} == {1}
    assert len(device.seen) > 20


def test_a_pass_that_fails_is_told_and_the_others_are_made(caplog):
    class Failing(Device):
        def __call__(self, tokens, cache):
            if tokens.shape[0] == 8:
                raise RuntimeError("too many rows")
            return super().__call__(tokens, cache)

    device = Failing(0.0)
    with caplog.at_level(logging.WARNING):
        list(warm_up_of(device).steps(ANY_SHAPE))
    assert any("a pass of the warm-up failed" in line for line in caplog.messages)
    assert {shape[0] for shape in device.seen} >= {4, 2}


def test_a_cancelled_warm_up_leaves_nothing_behind():
    device = Device(0.08)
    steps = warm_up_of(device).steps(FEW)
    next(steps)
    seen = dict(device.seen)
    steps.close()
    assert device.seen == seen
