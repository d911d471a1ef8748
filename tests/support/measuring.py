"""Tell coverage which test file runs: a pytest plugin for `tests.support.coverage_by_module`.

Each worker measures itself, and what its tests start in processes of their own is measured by
`measured/sitecustomize.py`. All of them leave their data in one folder.
"""

import importlib
import os
from contextlib import suppress
from pathlib import Path

import coverage
import pytest

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ("gateway", "provider")
FOLDER, CONTEXT = "MEASURED_INTO", "MEASURED_FOR"
# A program that stops early, or runs none of the packages, is nothing to be warned of.
QUIET = ["no-data-collected", "module-not-imported", "module-not-measured", "module-not-python"]


def measuring(**options):
    """Return a Coverage of both packages, for any thread."""
    this = coverage.Coverage(
        source=[str(ROOT / package) for package in PACKAGES],
        concurrency=["thread"],
        config_file=False,
        messages=False,
        **options,
    )
    this.set_option("run:disable_warnings", QUIET)
    return this


def save_lines(data):
    """Save what a program has run for the test file that its environment names by now.

    A program forked from another learns only later for which file it runs.
    """
    saved = coverage.CoverageData(str(Path(os.environ[FOLDER]) / "coverage"), suffix=True)
    saved.set_context(os.environ[CONTEXT])
    saved.add_lines({file: data.lines(file) for file in data.measured_files()})
    saved.write()


def module_names():
    paths = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return sorted(str(path.relative_to(ROOT)) for path in paths if path.name != "__init__.py")


class Contexts:
    """What a worker measures, by the test file that runs."""

    def __init__(self, measuring):
        self._measuring = measuring

    def begin(self, path):
        name = str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else "elsewhere"
        os.environ[CONTEXT] = name
        self._measuring.switch_context(name)

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(self, collector):
        self.begin(collector.path)
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        self.begin(item.path)
        return (yield)

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self):
        self._measuring.stop()
        self._measuring.save()


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config):
    """Import all modules before any test does: no test file is to be credited for it."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    paths = [str(ROOT / "tests/support/measured"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    this = measuring(data_file=str(Path(os.environ[FOLDER]) / "coverage"), data_suffix=True)
    this.start()
    for name in module_names():
        with suppress(ImportError):
            importlib.import_module(name.removesuffix(".py").replace("/", "."))
    early_config.pluginmanager.register(Contexts(this))
