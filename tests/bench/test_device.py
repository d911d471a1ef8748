"""The device's benchmark runs through at a small size, and its table is Markdown."""

import subprocess
import sys

import pytest

from tests.bench.device import SMALL, table
from tests.support.timeouts import TIMEOUT


def test_rows_of_a_table_have_the_same_number_of_cells():
    lines = table([("one", "1 s"), ("two", "2 s", "beside", "another")]).splitlines()
    assert {line.count("|") for line in lines} == {5}
    assert lines[2] == "| one | 1 s |  |  |"


@pytest.mark.slow("two tiny models are measured in every way, and a process is started")
@pytest.mark.timeout(300)
def test_the_benchmark_runs_through_at_a_small_size():
    command = [sys.executable, "-m", "tests.bench.device", "--small"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=TIMEOUT * 20, check=False
    )
    assert done.returncode == 0, done.stderr
    title, _, *rows = done.stdout.splitlines()
    assert "mlx-lm" in title
    for name, *_ in SMALL.models:
        measured = [row for row in rows if f"| {name}: " in row]
        assert len(measured) == len(SMALL.rows) + 4
    assert "a new process" in rows[-1]
