"""ARCHITECTURE.md names what is there: files, classes, settings, states and limits."""

import ast
import functools
import re
from pathlib import Path

import pytest

from gateway.protocol.codes import ErrorCode
from gateway.protocol.frames import ClientFrame, ServerFrame
from gateway.server.limits import ENFORCERS
from tests.support.diagrams import PAGE, ROOT, RUNNING, limits, renewed, state_diagram

TEXT = PAGE.read_text(encoding="utf-8")
PROSE = re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL)
NAMES = re.findall(r"`([^`]+)`", PROSE)
SOURCES = [*ROOT.glob("gateway/**/*.py"), *ROOT.glob("provider/**/*.py")]
LIMITS = {setting.name for setting in limits()}


@functools.cache
def definitions():
    """Return what the code defines: functions, constants and classes, these with their members."""
    names, members = set(), {}
    for path in [*SOURCES, *ROOT.glob("tests/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                found = members.setdefault(node.name, set())
                found |= {one.name for one in node.body if hasattr(one, "name")}
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                names.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
    return names, members


# Words of the wire and of commands, which are no definitions.
WORDS = {str(code) for code in ErrorCode} | {
    str(frame.__struct_config__.tag) for frame in (*ClientFrame.__args__, *ServerFrame.__args__)
}
WRITE = "python -m tests.support.diagrams"
OTHERS = {"await", "length", "n", "mlx-gateway serve --help-all", WRITE, f"{WRITE} --write"}
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted({name for name in NAMES if "/" in name}))
def test_a_path_that_is_named_exists(name):
    if "<" not in name:
        assert (ROOT / name).exists()


@pytest.mark.parametrize("name", sorted({name for name in NAMES if "/" not in name}))
def test_a_name_that_is_named_is_defined(name):
    if name in OTHERS or name in LIMITS or name in WORDS:
        return
    if name.startswith("make "):
        assert f"\n{name.removeprefix('make ')}:" in MAKEFILE
        return
    if re.fullmatch(r"test_\w+", name):
        assert any(f"def {name}(" in path.read_text() for path in ROOT.glob("tests/**/*.py"))
        return
    call = re.fullmatch(r"(?:await )?(?:\w+\.)?(\w+)\(.*\)", name)
    name = call[1] if call else name
    first, _, member = name.partition(".")
    defined, members = definitions()
    assert first in members or first in defined or (ROOT / first).is_dir()
    if member:
        assert member in members[first]


@pytest.mark.parametrize("page", [PAGE, RUNNING], ids=lambda page: page.name)
def test_generated_sections_are_as_the_code(page):
    text = page.read_text(encoding="utf-8")
    assert "<!-- generated: " in text
    assert renewed(text) == text, "run `python -m tests.support.diagrams --write`"


def test_every_setting_that_bounds_something_stands_with_its_reason_where_operators_look():
    said = RUNNING.read_text(encoding="utf-8")
    assert {setting.field.name for setting in limits()} >= ENFORCERS.keys()
    for setting in limits():
        [row] = [line for line in said.splitlines() if line.startswith(f"| `{setting.flag}` |")]
        assert len(row.split("|")[3].split()) > 3, row


def test_a_diagram_has_every_way_of_its_table():
    class Went:
        pass

    drawn = state_diagram("a", {"a": {Went: "b", "left": "b"}, "b": {"back": "a"}, "c": set()})
    assert drawn.splitlines()[2:-1] == [
        "    [*] --> a",
        "    a --> b : Went, left",
        "    b --> a : back",
        "    c --> [*]",
    ]


def rows(heading):
    section = TEXT.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return [line for line in section.splitlines() if line.startswith("| ")][1:]


def test_every_limit_is_in_the_table_of_limits():
    named = set(re.findall(r"`(\w+)`", "\n".join(rows("Buffers and limits"))))
    assert LIMITS - named == set()


@pytest.mark.parametrize("row", rows("Buffers and limits"), ids=lambda row: row.split(" | ")[0])
def test_a_limit_is_enforced_where_the_table_says(row):
    _, bounds, enforcers, _ = row.strip("| ").split(" | ")
    code = "".join((ROOT / path).read_text("utf-8") for path in re.findall(r"`([^`]+)`", enforcers))
    for bound in re.findall(r"`(\w+)`", bounds):
        assert re.search(rf"\b{bound}(_s)?\b", code), bound


def test_the_table_agrees_with_the_gateways_own():
    table = rows("Buffers and limits")
    for name, function in ENFORCERS.items():
        (row,) = [row for row in table if f"`{name.removesuffix('_s')}`" in row]
        assert f"`gateway/server/{function.partition('.')[0]}.py`" in row, name


def test_every_task_names_its_files():
    tasks = rows("Where to change what")
    assert len(tasks) == 10
    for task in tasks:
        assert re.search(r"`(gateway|provider|web_demo)/", task), task


THREAD = re.compile(r'(?:thread_name_prefix=|\bThread\(.{0,200}?\bname=)"([\w-]+)"', re.DOTALL)


def test_every_thread_that_the_code_starts_is_in_the_table():
    started = {name for path in SOURCES for name in THREAD.findall(path.read_text("utf-8"))}
    table = "\n".join(rows("Threads"))
    assert "mlx-engine" in started
    assert [name for name in started if name not in table] == []


def test_the_page_is_short():
    assert len(TEXT.split()) < 3500
    assert Path(PAGE).name == "ARCHITECTURE.md"
