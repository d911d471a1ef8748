"""Each benchmark still runs; what it measures is for a quiet machine."""

import json
import subprocess
import sys

import pytest

from tests.support.timeouts import TIMEOUT


@pytest.mark.slow("one round of a benchmark takes up to minutes")
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("module", "least"), [("tests.bench.gateway", 8)])
def test_a_benchmark_runs_through(module, least, tmp_path):
    figures = tmp_path / "figures.json"
    command = [sys.executable, "-m", module, "--quick", "--json", str(figures)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=TIMEOUT * 20, check=False
    )
    assert figures.exists(), done.stderr
    assert len(json.loads(figures.read_text())) >= least, done.stdout
