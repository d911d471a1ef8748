"""Whatever throws: one end a run, the right text for the unharmed, and a thread that lives."""

import asyncio
import gc
import logging

import pytest

from provider.runtime.mlx import active_memory
from tests.support.faults import PLACES, FaultyEngine
from tests.support.timeouts import TIMEOUT

LONG = pytest.mark.slow("a hundred faults and more take a minute")


@pytest.mark.parametrize(
    ("seed", "count"),
    [(2, 30), pytest.param(0, 120, marks=LONG), pytest.param(1, 120, marks=LONG)],
)
async def test_faults_everywhere_end_the_runs_at_fault_and_no_others(seed, count, caplog):
    caplog.set_level(logging.CRITICAL, "provider")  # what is captured holds on to whole frames
    faulty = FaultyEngine(seed, prompts=min(24, count // 4))
    try:
        await faulty.expected()
        gc.collect()  # of the engine of the test before
        before = active_memory()
        outcome = await faulty.run(count)
        assert outcome.wrong == []
        assert outcome.finished > count * 5 / 12
        assert sum(faulty.dice.thrown.values()) > count / 12
        async with asyncio.timeout(TIMEOUT * 2):
            while faulty.engine.busy:
                await asyncio.sleep(0.01)
        assert faulty.engine.runs == []
        gc.collect()
        assert abs(active_memory() - before) < 1 << 20
        own = [place for place in PLACES if place != "model"]
        assert all(outcome.failed[place] <= faulty.dice.thrown[place] for place in own)
        statistics = faulty.engine.statistics()
        assert (statistics.restarts, statistics.committed_bytes) == (0, 0)
    finally:
        faulty.engine.close()


@pytest.mark.parametrize("count", [15, pytest.param(60, marks=LONG)])
async def test_a_model_that_often_fails_still_harms_few(count):
    """Most passes that fail are of many rows: each is read again alone and goes on."""
    faulty = FaultyEngine(
        3, prompts=min(24, count // 3), model=0.02, sampler=0, processor=0, detokenizer=0
    )
    try:
        outcome = await faulty.run(count)
    finally:
        faulty.engine.close()
    assert outcome.wrong == []
    assert outcome.finished > outcome.failed["model"]
