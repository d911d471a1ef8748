"""The parts of ARCHITECTURE.md that are made from the code: its diagrams and its table of packages.

`python -m tests.support.diagrams --write` writes them; a test compares them.
"""

import ast
import re
import sys
from pathlib import Path

from gateway.protocol import generation
from provider.engine import run_states

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "ARCHITECTURE.md"
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


def sections():
    """Return what each generated section holds, by its name."""
    return {
        "packages": packages(),
        "generation": state_diagram(generation.State.QUEUED, generation.TRANSITIONS),
        "run": state_diagram(run_states.RunState.POSTED, run_states.TRANSITIONS),
    }


def renewed(page):
    """Return a page with its generated sections made anew."""
    made = sections()
    return SECTION.sub(lambda found: f"{found[1]}{made[found[2]]}\n{found[3]}", page)


if __name__ == "__main__":
    page = PAGE.read_text(encoding="utf-8")
    if "--write" in sys.argv:
        PAGE.write_text(renewed(page), encoding="utf-8")
    else:
        print(renewed(page))
