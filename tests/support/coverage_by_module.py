"""Measure each module by the tests of its own file: `python -m tests.support.coverage_by_module`.

Coverage by chance, from the tests of other modules, says little of whether a module is tested. The
test files run once, in two processes, and the lines that each file runs are told apart. Arguments
choose modules: `provider/formats gateway/server/rates.py`; options are pytest's.
"""

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import coverage

from tests.support.measuring import FOLDER, PACKAGES, ROOT, module_names

LEAST = 85  # percent of a module's statements
MIN_RATIO = 0.8  # lines of tests to lines of code
MAX_WORKERS = 2
# Modules that may have less, each with the reason.
REASONS = {
    "gateway/commands/models.py": "pulling runs beside a stand-in for the hub, in test_hub.py",
    "provider/embedded/making/network.py": "torch is not installed for the tests",
    "provider/embedded/making/train.py": "torch is not installed for the tests",
    "provider/replicas/ray_provider.py": "Ray is not installed here; `make test-ray` runs it",
    "provider/replicas/ray_serve.py": "Ray is not installed here; `make test-ray` runs it",
}
MEASURED = "not slow and not real and not front_ends and not clients and not ray"  # as `make test`
# Modules whose tests are in a file of another name.
TESTS = {"gateway/__main__.py": "tests/gateway/commands/test_cli.py"}
CORPUS = "provider/embedded/making/corpus"  # documents of one kind each, under one test


@dataclass(frozen=True)
class Measured:
    """How much of a module its own tests run."""

    module: str
    statements: int
    missed: list[int]

    @property
    def percent(self):
        return 100.0 * (1 - len(self.missed) / self.statements) if self.statements else 100.0

    @property
    def enough(self):
        return self.percent >= LEAST or self.module in REASONS

    @property
    def remark(self):
        if self.percent >= LEAST:
            return ""
        lines = ", ".join(map(str, self.missed))
        return REASONS.get(self.module, f"less than {LEAST} %, without lines {lines}")


def test_of(module):
    path = Path(CORPUS if module.startswith(f"{CORPUS}/") else module)
    return TESTS.get(module, str("tests" / path.parent / f"test_{path.stem}.py"))


def run(tests, options, folder):
    """Run test files, keep in this folder which lines each of them runs, and return the status."""
    workers = str(min(MAX_WORKERS, len(tests)))
    command = [sys.executable, "-m", "pytest", "--quiet", "-m", MEASURED]
    command += ["--numprocesses", workers, "--dist", "loadfile", "-p", "tests.support.measuring"]
    environment = {"OPENBLAS_NUM_THREADS": "1", **os.environ, FOLDER: str(folder)}
    done = subprocess.run([*command, *options, *tests], env=environment, cwd=ROOT, check=False)
    return done.returncode


def statements_of(names):
    """Return the lines of each module's statements, as they are before the tests run."""
    reader = coverage.Coverage(data_file=None, config_file=False, messages=False)
    return {name: reader.analysis2(str(ROOT / name))[1] for name in names}


def measured(folder, statements_by_name):
    """Compare what a module's test file has run with all that could be."""
    all_of_them = coverage.Coverage(
        data_file=str(folder / "coverage"), config_file=False, messages=False
    )
    all_of_them.combine([str(folder)])
    data = all_of_them.get_data()
    for name, statements in statements_by_name.items():
        contexts = data.contexts_by_lineno(str(ROOT / name))
        # Imports come before any test: what runs in no context is all at a module's top level.
        ran = {line for line, by in contexts.items() if {"", test_of(name)} & set(by)}
        yield Measured(name, len(statements), sorted(set(statements) - ran))


def lines_of(folders):
    """Return how many lines that are not blank the Python files of these folders hold."""
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    texts = [path.read_text(encoding="utf-8") for path in files]
    return sum(bool(line.strip()) for text in texts for line in text.splitlines())


def print_table(rows):
    width = max(len(row.module) for row in rows)
    for row in rows:
        line = f"{row.module:{width}}  {row.statements:5}  {row.percent:5.1f} %  {row.remark}"
        print(line.rstrip())


def main():
    chosen = tuple(name for name in sys.argv[1:] if not name.startswith("-"))
    options = [name for name in sys.argv[1:] if name.startswith("-")]
    names = [name for name in module_names() if not chosen or name.startswith(chosen)]
    tests = sorted({test for test in map(test_of, names) if (ROOT / test).exists()})
    statements = statements_of(names)
    with tempfile.TemporaryDirectory() as folder:
        status = run(tests, options, Path(folder))
        rows = list(measured(Path(folder), statements))
    print_table(rows)
    tests, code = lines_of(["tests"]), lines_of(PACKAGES)
    print(f"\n{tests} lines of tests to {code} of code: {tests / code:.2f}")
    too_little = [row.module for row in rows if not row.enough]
    return status or int(bool(too_little) or tests / code < MIN_RATIO)


if __name__ == "__main__":
    sys.exit(main())
