"""The engine's numbers."""

from dataclasses import fields

from provider.engine.statistics import (
    STEP_BOUNDS,
    Counters,
    EngineStatistics,
    Histogram,
    total_of,
)

COUNTED = {one.name for one in fields(EngineStatistics) if one.metadata.get("kind") == "counter"}


def numbers(start):
    values = {one.name: start + place for place, one in enumerate(fields(EngineStatistics))}
    histogram = Histogram(STEP_BOUNDS)
    for _ in range(start):
        histogram.add(0.001)
    return EngineStatistics(**{**values, "step_seconds": histogram.snapshot()})


def test_a_histogram_counts_each_value_once_under_its_bound():
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 3.0):
        histogram.add(value)
    snapshot = histogram.snapshot()
    assert snapshot.counts == (2, 1, 1)
    assert (snapshot.count, snapshot.total) == (4, 6.0)
    histogram.add(0.1)
    assert snapshot.count == 4


def test_the_total_is_the_sum_of_every_number():
    one, other = numbers(1), numbers(2)
    total = total_of([one, other])
    for field in fields(EngineStatistics):
        mine, theirs = getattr(one, field.name), getattr(other, field.name)
        if field.name == "step_seconds":
            assert total.step_seconds.count == mine.count + theirs.count
        else:
            assert getattr(total, field.name) == mine + theirs


def test_what_only_grows_outlives_an_engine_and_what_is_held_does_not():
    past = numbers(1).only_growing()
    for field in fields(EngineStatistics):
        kept = getattr(past, field.name) == getattr(numbers(1), field.name)
        assert kept == (field.name in COUNTED), field.name


def test_every_counter_is_told_and_said_to_grow():
    names = {field.name for field in fields(Counters)}
    assert names <= {field.name for field in fields(EngineStatistics)}
    assert names <= COUNTED
