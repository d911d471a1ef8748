"""What is asked of a gateway under attack, and whether it was seen.

Bounds on time are beside a quiet run on the same machine, some seconds before: what was seen then,
what the measuring process itself was late, and SLACK_S for the rest that two busy cores add. The
rule behind them is that no message takes the event loop for more than 20 ms; what breaks it takes
seconds, as the cases did before there were bounds, and can't hide in that slack.
"""

import json
from dataclasses import asdict, dataclass, field

from rich.console import Console
from rich.markup import escape
from rich.table import Table

SLACK_S = 0.25
UNSERVED = 0.1  # share of the time from which on it is said
SHARE = 0.8  # of the quiet tokens a second
COLUMNS = ("longest gap", "ping", "first text", "tokens/s", "memory")
MIB = 1 << 20

console = Console(stderr=True)


@dataclass
class Check:
    """One thing that was asked: what was seen, beside what without the attack."""

    what: str
    seen: float | str
    holds: bool
    bound: str = ""
    quiet: float | None = None

    def __str__(self):
        said = _said(self.seen)
        if self.quiet is not None:
            said = f"{_said(self.quiet)} → {said}"
        return said if self.holds else f"[red]{said} ({self.bound})[/red]"


@dataclass
class Verdict:
    """What a case has shown."""

    case: str
    subject: str
    sent: str
    checks: list[Check]
    seconds: float
    first: list[str] = field(default_factory=list)  # what failed on a first try, if this is another

    @property
    def holds(self):
        return bool(self.checks) and all(check.holds for check in self.checks)

    @property
    def failed(self):
        """What does not hold."""
        return [
            f"{check.what}: {_said(check.seen)}, {check.bound}"
            for check in self.checks
            if not check.holds
        ]


def _said(value):
    return escape(value) if isinstance(value, str) else f"{value:.3g}"


def waits(what, quiet, seen, more=SLACK_S):
    """Check that polite clients wait no longer than when it is quiet, and a little."""
    name = {"gap": "longest gap", "ping": "ping", "first": "first text"}[what]
    before, after = getattr(quiet, what), getattr(seen, what)
    most = before + more + seen.late
    return Check(name, after, after <= most, f"at most {most:.2g} s", before)


def usually_waits(what, quiet, seen, more):
    """Check that nine of ten waits of polite clients are over as soon as when it is quiet, nearly.

    Where processes have few processors, the longest of many waits shows the kernel's scheduler.
    """
    before, after = quiet.usual(what), seen.usual(what)
    most = before + more
    return Check(f"nine of ten {what}", after, after <= most, f"at most {most:.2g} s", before)


def keeps(quiet, seen, share=SHARE):
    """Check that polite clients get most of the text that they get when it is quiet."""
    least = share * quiet.rate
    return Check("tokens/s", seen.rate, seen.rate >= least, f"at least {least:.3g}", quiet.rate)


def takes_on(seen, mebibytes, *, children=True):
    """Check how much memory the attack made the server take on."""
    taken = (seen.memory if children else seen.alone) / MIB
    said = f"at most {mebibytes} MiB"
    return Check("memory", f"{taken:.0f} MiB", taken <= mebibytes, said)


def answers_right(seen):
    """Check that every answer was whole and right, and none refused."""
    if seen.failures:
        said = ", ".join(f"{count} {name}" for name, count in seen.failures.items())
        return Check("answers", said, False, "no failure")
    if seen.wrong:
        return Check("answers", f"{seen.wrong} wrong", False, "none wrong")
    return Check("answers", f"{seen.answers} right", True)


def told(answers):
    """Show what the attacker was told."""
    return Check("attacker", _listed(answers), True)


def told_only(answers, *expected):
    """Check that the attacker was told these answers, and no others."""
    return Check(
        "attacker", _listed(answers), set(answers) <= set(expected), f"only {', '.join(expected)}"
    )


def _listed(answers):
    return ", ".join(f"{name} ({count})" for name, count in answers.items()) or "nothing"


def beside(quiet, seen, *, share=SHARE, memory=None, first=SLACK_S, slack=SLACK_S):
    """Return the checks that every attack beside polite clients gets."""
    checks = [waits("gap", quiet, seen, slack), waits("ping", quiet, seen, slack)]
    checks += [waits("first", quiet, seen, first), keeps(quiet, seen, share)]
    checks += [takes_on(seen, memory)] if memory is not None else []
    if seen.unserved > UNSERVED * seen.seconds:
        checks.append(Check("seconds without a processor", seen.unserved, True))
    return [*checks, answers_right(seen)]


def table(verdicts):
    """Return a table with a line for each case: quiet → under attack, in seconds."""
    shown = Table(title="mlx-gateway under attack", caption="seconds; quiet → under attack")
    for column in ("case", "what is sent", *COLUMNS, "and", ""):
        shown.add_column(column, overflow="fold")
    for verdict in verdicts:
        by_name = {check.what: check for check in verdict.checks}
        others = [check for check in verdict.checks if check.what not in COLUMNS]
        shown.add_row(
            verdict.case,
            verdict.sent,
            *(str(by_name[name]) if name in by_name else "" for name in COLUMNS),
            "\n".join(f"{check.what}: {check}" for check in others),
            "\n".join([_mark(verdict), *(f"first {why}" for why in verdict.first)]),
        )
    return shown


def _mark(verdict):
    return ("ok" if verdict.holds else "[red]FAILED[/red]") + ", again" * bool(verdict.first)


def write(verdicts, file):
    """Write everything that was seen as JSON."""
    file.parent.mkdir(parents=True, exist_ok=True)
    shown = [{**asdict(verdict), "holds": verdict.holds} for verdict in verdicts]
    file.write_text(json.dumps(shown, indent=2) + "\n")
