"""Whatever throws: one end a run, the right text for the unharmed, and a thread that lives."""

import gc
import json
import logging
import os
import subprocess
import sys
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from provider.runtime.memory_limits import memory_limits
from provider.runtime.mlx import active_memory
from tests.support.faults import PLACES, FaultyEngine
from tests.support.servers import eventually
from tests.support.timeouts import TIMEOUT
from tests.support.tiny_models import LLAMA, write_model

LONG = pytest.mark.slow("a hundred faults and more take a minute")


@pytest.mark.parametrize(
    ("seed", "count"),
    [(2, 30), pytest.param(0, 120, marks=LONG), pytest.param(1, 120, marks=LONG)],
)
async def test_faults_everywhere_end_the_runs_at_fault_and_no_others(light, seed, count, caplog):
    caplog.set_level(logging.CRITICAL, "provider")  # what is captured holds on to whole frames
    faulty = FaultyEngine(seed, prompts=min(24, count // 4), path=light)
    thrown, least = faulty.dice.thrown, count // 30

    def enough(outcome):
        return outcome.finished >= count / 3 and min(thrown.values()) >= least

    try:
        await faulty.expected()
        gc.collect()  # of the engine of the test before
        before = active_memory()
        outcome = await faulty.run(count, enough)
        assert outcome.wrong == []
        assert outcome.ended == outcome.runs
        assert enough(outcome), (outcome, thrown)
        assert all(outcome.failed[place] <= thrown[place] for place in PLACES)
        await eventually(lambda: not faulty.engine.busy)
        assert faulty.engine.runs == []
        statistics = faulty.engine.statistics()
        assert (statistics.restarts, statistics.committed_bytes) == (0, 0)
        await eventually(lambda: gc.collect() >= 0 and active_memory() - before < 1 << 20)
    finally:
        faulty.engine.close()


@pytest.mark.parametrize("count", [15, pytest.param(60, marks=LONG)])
async def test_a_model_that_often_fails_still_harms_few(light, count):
    """Most passes that fail are of many rows: each is read again alone and goes on."""
    faulty = FaultyEngine(
        3,
        prompts=min(24, count // 3),
        path=light,
        model=0.02,
        sampler=0,
        processor=0,
        detokenizer=0,
    )

    def harmless(outcome):
        return faulty.dice.thrown["model"] - outcome.failed["model"]

    try:
        outcome = await faulty.run(count, lambda outcome: harmless(outcome) >= count // 15)
    finally:
        faulty.engine.close()
    assert outcome.wrong == []
    assert outcome.ended == outcome.runs
    assert harmless(outcome) >= count // 15


# The KV cache of a prompt of a hundred tokens takes 50 MiB.
LARGE_CACHE = {
    **LLAMA,
    "num_hidden_layers": 2,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "head_dim": 2048,
}


@contextmanager
def cgroup(nbytes):
    """Make a cgroup with a limit on memory inside this process's own, or skip the test."""
    own = [limit for limit in memory_limits() if " of /" in limit.name]
    if not own:
        pytest.skip("no cgroup counts this process's memory")
    what, parent = own[0].name.split(" of ")
    folder = Path(parent, f"limited-{os.getpid()}")
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made: {error}")
    try:
        (folder / what).write_text(str(nbytes))
        yield folder
    except PermissionError as error:  # the system counts no memory in cgroups below this one
        pytest.skip(f"a cgroup can't be limited: {error}")
    finally:
        folder.rmdir()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such limits")
@pytest.mark.parametrize(
    ("kind", "prompts"),
    [
        pytest.param("cgroup", 18, marks=pytest.mark.slow("it fills 1 GiB")),
        pytest.param("as", 30, marks=pytest.mark.slow("it fills 2 GiB")),
    ],
)
def test_a_limit_on_memory_refuses_what_does_not_fit_and_ends_no_process(kind, prompts, tmp_path):
    model = write_model(tmp_path / "model", LARGE_CACHE)
    limit = nullcontext(2 << 30) if kind == "as" else cgroup(1 << 30)
    with limit as value:
        arguments = [sys.executable, "-m", "tests.support.limited", kind, str(value), str(model)]
        done = subprocess.run(
            arguments,
            capture_output=True,
            text=True,
            timeout=TIMEOUT * 20,
            check=False,
            env={**os.environ, "PROMPTS": str(prompts)},
        )
    assert done.returncode == 0, done.stderr[-2000:]
    seen = json.loads(done.stdout)
    *reasons, refused = seen["texts"]
    assert reasons == ["length"] * prompts
    assert "lower `max_tokens`" in refused
    assert 0 < seen["kept"] < 1 << 30
