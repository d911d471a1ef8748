"""What is imported is declared in pyproject.toml, and what is declared is imported."""

import ast
import functools
import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT, GROUPS = PYPROJECT["project"], PYPROJECT["dependency-groups"]
OWN = {"gateway", "provider"}
ALIASES = {"PIL": "pillow"}  # packages whose distribution has another name
# Where an extra's packages may be imported; everything else makes do with the dependencies.
EXTRAS = {
    "ray": ("provider/replicas/ray_serve.py",),
    "train": ("provider/embedded/making/",),
    "vision": ("provider/models/vision.py", "provider/inputs/images.py", "provider/runtime/"),
}
BUILDING = "gateway/client/hatch_build.py"  # run where distributions are built


def declared(requirements):
    return {Requirement(one).name for one in requirements}


def allowed(path):
    names = declared(PROJECT["dependencies"])
    if path == BUILDING:
        names |= declared(GROUPS["build"])
    for extra, places in EXTRAS.items():
        if path.startswith(places):
            names |= declared(PROJECT["optional-dependencies"][extra])
    return names


@functools.cache
def imported(path):
    """Return the distributions that a file imports anywhere in it."""
    roots = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            roots |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            roots.add(node.module.partition(".")[0])
    foreign = roots - OWN - sys.stdlib_module_names
    return frozenset(ALIASES.get(root, root.lower().replace("_", "-")) for root in foreign)


FILES = {
    str(path.relative_to(ROOT)): path for own in sorted(OWN) for path in (ROOT / own).rglob("*.py")
}


def test_what_is_imported_is_declared():
    missing = {name: imported(path) - allowed(name) for name, path in FILES.items()}
    assert {name: found for name, found in missing.items() if found} == {}


def test_what_is_declared_is_imported():
    every = set().union(*map(imported, FILES.values()))
    extras = (PROJECT["optional-dependencies"][extra] for extra in EXTRAS)
    assert declared(PROJECT["dependencies"]).union(*map(declared, extras)) - every == set()


@pytest.mark.parametrize(
    "requirement",
    [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["vision"]],
    ids=lambda requirement: re.split(r"[^\\w-]", requirement)[0],
)
def test_what_is_declared_fits_what_is_installed(requirement):
    wanted = Requirement(requirement)
    if wanted.marker is None or wanted.marker.evaluate():
        assert importlib.metadata.version(wanted.name) in wanted.specifier
