"""Measure each module by the tests of its own file: `python -m tests.support.coverage_by_module`.

Coverage by chance, from the tests of other modules, says little of whether a module is tested. The
tests run once, a test file after the other within one process, and the lines that each file runs
are told apart. Arguments choose modules: `provider/formats gateway/server/rates.py`.
"""

import importlib
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import coverage
import pytest

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ("gateway", "provider")
LEAST = 85  # percent of a module's statements
# Modules that may have less, or are measured by another file, each with the reason.
REASONS = {
    "gateway/__main__.py": "the tests of the command line run it in processes of their own",
    "gateway/commands/chat.py": "run in processes of their own, with terminals",
    "gateway/commands/cli.py": "run in processes of their own",
    "gateway/commands/models.py": "run in processes of their own, beside a stand-in for the hub",
    "gateway/commands/serve.py": "run in processes of their own, which get signals",
    "provider/models/hub.py": "run in processes of their own, beside a stand-in for the hub",
    "provider/embedded/making/network.py": "torch is not installed for the tests",
    "provider/embedded/making/train.py": "torch is not installed for the tests",
}


@dataclass(frozen=True)
class Measured:
    """How much of a module its own tests run."""

    module: str
    statements: int
    missed: int

    @property
    def percent(self):
        return 100.0 * (1 - self.missed / self.statements) if self.statements else 100.0

    @property
    def enough(self):
        return self.percent >= LEAST or self.module in REASONS


class Contexts:
    """A pytest plugin that tells coverage which test file runs."""

    def __init__(self, measuring):
        self._measuring = measuring

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        self._measuring.switch_context(str(item.path.relative_to(ROOT)))
        return (yield)


def modules(chosen):
    """Return the modules under these paths, or all, but for packages' own files."""
    paths = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    names = sorted(str(path.relative_to(ROOT)) for path in paths if path.name != "__init__.py")
    return [name for name in names if not chosen or name.startswith(tuple(chosen))]


def test_of(module):
    path = Path(module)
    return str("tests" / path.parent / f"test_{path.stem}.py")


def run(names, tests, arguments):
    """Run test files; return what of these modules each of them has run, and pytest's status."""
    measuring = coverage.Coverage(
        data_file=None, source_pkgs=list(PACKAGES), concurrency=["thread"], messages=False
    )
    measuring.start()
    for name in names:  # whoever comes first imports: no test file is to be credited for it
        with suppress(ImportError):
            importlib.import_module(name.removesuffix(".py").replace("/", "."))
    status = pytest.main(
        ["--quiet", "-m", "not slow", *arguments, *tests], plugins=[Contexts(measuring)]
    )
    measuring.stop()
    return measuring, status


def measured(measuring, names):
    """Compare what a module's test file has run with all that could be."""
    data = measuring.get_data()
    for name in names:
        path = str(ROOT / name)
        _, statements, _, _, _ = measuring.analysis2(path)
        contexts = data.contexts_by_lineno(path)
        # Imports come before any test: what runs in no context is all at a module's top level.
        ran = {line for line, by in contexts.items() if {"", test_of(name)} & set(by)}
        yield Measured(name, len(statements), len(set(statements) - ran))


def lines_of(folders):
    """Return how many lines that are not blank the Python files of these folders hold."""
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    texts = [path.read_text(encoding="utf-8") for path in files]
    return sum(bool(line.strip()) for text in texts for line in text.splitlines())


def print_table(rows):
    width = max(len(row.module) for row in rows)
    for row in rows:
        reason = "" if row.percent >= LEAST else REASONS.get(row.module, f"less than {LEAST} %")
        print(f"{row.module:{width}}  {row.statements:5}  {row.percent:5.1f} %  {reason}".rstrip())
    tests, code = lines_of(["tests"]), lines_of(PACKAGES)
    print(f"\n{tests} lines of tests to {code} of code: {tests / code:.2f}")


def main():
    chosen = [name for name in sys.argv[1:] if not name.startswith("-")]
    names = modules(chosen)
    tests = [test for test in map(test_of, names) if (ROOT / test).exists()]
    measuring, status = run(names, tests, [name for name in sys.argv[1:] if name.startswith("-")])
    rows = list(measured(measuring, names))
    print_table(rows)
    return int(status) or int(not all(row.enough for row in rows))


if __name__ == "__main__":
    sys.exit(main())
