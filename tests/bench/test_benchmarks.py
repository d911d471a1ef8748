"""Each benchmark still runs; what it measures is for a quiet machine."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.timeouts import TIMEOUT

SLOW = pytest.mark.slow("one round of a benchmark takes up to minutes")


@pytest.mark.timeout(1000)
@pytest.mark.parametrize(
    ("module", "least"),
    [
        pytest.param("tests.bench.gateway", 8, marks=SLOW),
        pytest.param("tests.bench.replicas", 9, marks=SLOW),
        pytest.param("tests.bench.sharded", 3, marks=SLOW),
        pytest.param("tests.bench.ray_serve", 22, marks=pytest.mark.ray),
    ],
)
def test_a_benchmark_runs_through(module, least, tmp_path):
    figures = tmp_path / "figures.json"
    command = [sys.executable, "-m", module, "--quick", "--json", str(figures)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=TIMEOUT * 40, check=False
    )
    assert figures.exists(), done.stderr
    assert len(json.loads(figures.read_text())) >= least, done.stdout


@pytest.mark.slow("a comparison starts four processes that each load a model")
@pytest.mark.timeout(1000)
def test_a_tree_is_compared_with_itself():
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.bench.compare", str(root), "--rounds", "2"]
    done = subprocess.run(
        command, cwd=root, capture_output=True, text=True, timeout=TIMEOUT * 40, check=False
    )
    rows = [line for line in done.stdout.splitlines() if re.search(r"│ +(1|8|32) │", line)]
    assert len(rows) == 3, done.stdout + done.stderr
