"""The results as Markdown: one table, what stands out in it, and what each attack does."""

import os
import platform
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from hostile.registry import Attack
from hostile.result import Result

SLOW = 10
"""Above this ratio of 99th percentiles, an attack is named below the table."""

COLUMNS = (
    "attack",
    "keys",
    "p50 quiet",
    "p50",
    "p99 quiet",
    "p99",
    "p99 / quiet",
    "worst",
    "errors",
    "sessions lost",
    "newcomers",
    "answers",
    "busy",
    "memory before",
    "growth",
    "after",
    "files",
    "log",
    "end",
)
LEGEND = """\
The victim is one client that sends single events, with a pause of 2 ms between an answer and the next event, and
checks every answer. Its times are in milliseconds: *quiet* are those before the attack, on the same server; the
others are those during it. A slow answer counts again for every 5 ms in which it kept the next event from being sent.
*Errors* are events without the right answer. *Sessions lost*: of 20 sessions that the victim leaves alone during the
attack, those that are not as before it. *Newcomers* connect during the attack: how many of them got an answer within
two seconds. *Answers* counts by status what the server answered. *Busy* is the share of its core that the server
used. Memory is resident, in MB: before the attack, its *growth* to the highest value, and after the attack. *Files*
are open before the attack, at most, and after it. *Log* is in KB. *End* is the exit status after SIGTERM. *Keys*: the
server asks for API keys, and attacker and victim have one each. Every attack has a server of its own.
"""


def row(result: Result) -> list[str]:
    """Return the cells of a result."""
    quiet, during, settled = result.quiet, result.during, result.settled
    answered, came = result.newcomers
    return [
        result.attack.name,
        "yes" if result.keys else "",
        f"{quiet.percentile(50):.2f}",
        f"{during.percentile(50):.2f}",
        f"{quiet.percentile(99):.2f}",
        f"{during.percentile(99):.2f}",
        f"{result.ratio:.1f}",
        f"{during.percentile(100):.1f}",
        _counted(result.errors),
        _counted(result.lost),
        f"{answered}/{came}",
        ", ".join(f"{number:,} x {status}" for status, number in result.statuses.most_common()),
        f"{result.busy:.0%}",
        f"{result.before.memory / 1e6:.0f}",
        f"{result.growth / 1e6:+.0f}",
        f"{settled.memory / 1e6:.0f}" if settled else "-",
        f"{result.before.files}, {result.highest.files}, {settled.files if settled else '-'}",
        f"{result.end.logged / 1e3:.1f}" + (f", {result.end.tracebacks} tracebacks" if result.end.tracebacks else ""),
        _ended(result),
    ]


def _counted(faults: Counter[str]) -> str:
    if not faults:
        return "0"
    commonest = faults.most_common(1)[0][0]
    return f"{faults.total()} ({commonest})"


def _ended(result: Result) -> str:
    ended = "killed" if result.end.status is None else str(result.end.status)
    return ended if result.answers else f"{ended}, no answer before"


def lines(cells: Sequence[Sequence[str]]) -> list[str]:
    """Return a Markdown table with these rows."""
    rows = [COLUMNS, ("---", "---", *["--:"] * (len(COLUMNS) - 2)), *cells]
    return [f"| {' | '.join(row)} |" for row in rows]


def findings(results: Sequence[Result]) -> list[str]:
    """Return a line for each thing that stands out: faults, memory above what was promised, slow answers."""
    found = []
    for result in results:
        name = result.attack.name + (" (keys)" if result.keys else "")
        found += [f"{name}: {fault}" for fault in result.faults]
        if result.growth > result.promised:
            found.append(
                f"{name}: memory grew by {result.growth / 1e6:.0f} MB; {result.promised / 1e6:.0f} MB are promised"
            )
        if result.ratio > SLOW:
            found.append(f"{name}: the victim's p99 is {result.ratio:.0f} times its quiet one")
    return found


def page(results: Sequence[Result], command: str, seconds: float) -> str:
    """Return the page for docs/."""
    attacks: dict[str, Attack] = {result.attack.name: result.attack for result in results}
    promised = sorted({f"{result.promised / 1e6:.0f}" for result in results}, key=int)
    found = findings(results) or [
        "nothing: no error, no memory above the promise, no p99 above ten times the quiet one"
    ]
    return "\n".join(
        (
            "# The edge: a server under attack",
            "",
            f"`{command}` wrote this page; `make test-edge` runs every attack and writes it again.",
            f"Each attack ran for {seconds:g} seconds on {machine()}.",
            "The server ran on one core, the victim and the attacker on another, where the victim went first.",
            "The rows `floor` show what the attacker's work costs the victim if it never touches the server.",
            f"The server's greeting promises at most {' or '.join(promised)} MB for sessions and remembered answers.",
            "",
            *lines([row(result) for result in results]),
            "",
            LEGEND,
            "## What stands out",
            "",
            *(f"- {finding}" for finding in found),
            "",
            "## The attacks",
            "",
            *(f"- `{name}`: {attack.sentence}" for name, attack in attacks.items()),
            "",
        )
    )


def machine() -> str:
    """Say when this is, and what this machine is."""
    models = [line.split(":")[1].strip() for line in _cpu().splitlines() if line.startswith("model name")]
    model = models[0] if models else platform.processor() or platform.machine()
    now = datetime.now(UTC)
    return (
        f"{now:%Y-%m-%d}, on {os.cpu_count()} cores of {model}, Linux {platform.release()}, "
        f"Python {platform.python_version()}"
    )


def _cpu() -> str:
    file = Path("/proc/cpuinfo")
    return file.read_text() if file.exists() else ""
