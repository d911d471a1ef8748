"""The parts of pages that are made from the code: diagrams, tables of packages and of limits.

`python -m tests.support.diagrams --write` writes them; a test compares them.
"""

import ast
import re
import sys
from pathlib import Path

from gateway.configuration.settings import Settings
from gateway.configuration.sources import settings
from gateway.protocol import generation
from provider.engine import run_states
from provider.settings import EngineSettings

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "ARCHITECTURE.md"
RUNNING = ROOT / "gateway" / "RUNNING.md"
# The settings that bound something are those of these groups, but for some of the engine.
GROUPS = {"Limits", "Timeouts", "Engine"}
NO_LIMITS = {
    "dequantise",
    "draft_tokens",
    "few_shapes",
    "kv_bits",
    "kv_group_size",
    "prefix_cache_dir",
    "quantized_kv_start",
    "warmup",
}
SECTION = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def state_diagram(first, transitions):
    """Return a table of states as a diagram in mermaid.

    A state leads to a set of states, or to a mapping of events to states.
    """
    lines = [f"    [*] --> {_name(first)}"]
    for state, ways in transitions.items():
        by_target = {}
        for event, to in ways.items() if hasattr(ways, "items") else [("", to) for to in ways]:
            by_target.setdefault(_name(to), []).append(_name(event))
        for to, events in sorted(by_target.items()):
            label = f" : {', '.join(events)}" if any(events) else ""
            lines.append(f"    {_name(state)} --> {to}{label}")
        if not ways:
            lines.append(f"    {_name(state)} --> [*]")
    return "\n".join(["```mermaid", "stateDiagram-v2", *lines, "```"])


def _name(member):
    """Return how a state or an event is shown: an enum's name, a class's, or a text."""
    if isinstance(member, str):
        return str(member)
    return member.name.lower() if hasattr(member, "name") else member.__name__


def packages():
    """Return every package with what its docstring says of it, and its modules."""
    rows = ["| package | what it does | modules |", "|---|---|---|"]
    for init in sorted(ROOT.glob("gateway/**/__init__.py")) + sorted(
        ROOT.glob("provider/**/__init__.py")
    ):
        folder = init.parent
        if "corpus" in folder.parts:
            continue  # documents of one kind each, named in the package above it
        doc = (ast.get_docstring(ast.parse(init.read_text("utf-8"))) or "").split("\n\n")[0]
        names = sorted(path.stem for path in folder.glob("*.py") if path.stem[:2] != "__")
        modules = ", ".join(names)
        rows.append(f"| `{folder.relative_to(ROOT)}/` | {' '.join(doc.split())} | {modules} |")
    return "\n".join(rows)


def limits():
    """Return the settings that bound something."""
    found = settings(Settings, EngineSettings)
    return [one for one in found if one.group in GROUPS and one.name not in NO_LIMITS]


def table_of_limits():
    """Return every setting that bounds something, with its default and its reason."""
    rows = ["| setting | default | what it bounds |", "|---|---|---|"]
    for one in limits():
        rows.append(f"| `{one.flag}` | {one.default or 'none'} | {one.why} |")
    return "\n".join(rows)


def sections():
    """Return what each generated section holds, by its name."""
    return {
        "packages": packages(),
        "generation": state_diagram(generation.State.QUEUED, generation.TRANSITIONS),
        "limits": table_of_limits(),
        "run": state_diagram(run_states.RunState.POSTED, run_states.TRANSITIONS),
    }


def renewed(page):
    """Return a page with its generated sections made anew."""
    made = sections()
    return SECTION.sub(lambda found: f"{found[1]}{made[found[2]]}\n{found[3]}", page)


if __name__ == "__main__":
    for path in (PAGE, RUNNING):
        page = path.read_text(encoding="utf-8")
        if "--write" in sys.argv:
            path.write_text(renewed(page), encoding="utf-8")
        else:
            print(renewed(page))
