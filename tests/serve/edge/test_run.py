"""The longer run of attacks, `make test-edge`, with a few of them for a second each."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ...conftest import ROOT
from ..bundles import write_bundle

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the run reads /proc and pins processes to cores")
BENCHMARKS = ROOT / "benchmarks"
CHOSEN = {"churn": False, "empty-fragments": False, "unknown-keys": True}
"""Attacks, and whether the server asks for keys."""


def attack(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the program."""
    command = [sys.executable, BENCHMARKS / "edge.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def cells(line: str) -> list[str]:
    """The cells of a line of a table."""
    return [cell.strip() for cell in line.strip("|\n").split("|")]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """What the program printed and what it wrote, after a run that found no fault."""
    folder = tmp_path_factory.mktemp("edge")
    bundle = write_bundle(folder / "bundle")
    only = [word for name in CHOSEN for word in ("--only", name)]
    done = attack("--bundle", bundle, "--seconds", "1", "--quiet", "0.5", "--markdown", folder / "edge.md", *only)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, (folder / "edge.md").read_text()


def test_each_attack_has_its_row(page: tuple[str, str]) -> None:
    """Printed and written alike: no errors, nothing lost, a clean end, and the server had something to do."""
    for text in page:
        head, _, *rows = [cells(line) for line in text.splitlines() if line.startswith("|")]
        found = [dict(zip(head, row, strict=True)) for row in rows]
        assert {row["attack"]: row["keys"] == "yes" for row in found} == CHOSEN
        for row in found:
            assert (row["errors"], row["sessions lost"], row["end"]) == ("0", "0", "0")
            assert int(row["busy"].rstrip("%")) > 0
            assert int(row["memory before"]) > 0
        assert {row["attack"] for row in found if "x 401" in row["answers"]} == {"unknown-keys"}


def test_the_page_says_what_was_run(page: tuple[str, str]) -> None:
    """Each attack in its sentence, and the command that runs it again."""
    written = page[1]
    assert (
        "`python benchmarks/edge.py --seconds 1 --quiet 0.5 --only churn --only empty-fragments --only unknown-keys`"
        in written
    )
    assert "- `churn`: A hundred clients connect and disconnect as fast as they can." in written
    assert written.count("\n- `") == len(CHOSEN)


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program's modules can be imported."""
    monkeypatch.syspath_prepend(BENCHMARKS)


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"only": ("churn", "nothing")}, "'nothing' is no attack; the attacks are floor, idle-connections, churn,"),
        ({"seconds": 0.0}, "seconds must be above 0 and finite, got 0.0"),
        ({"quiet": float("inf")}, "quiet must be above 0 and finite, got inf"),
        ({"quiet": float("nan")}, "quiet must be above 0 and finite, got nan"),
        ({"bundle": Path("nowhere")}, "nowhere has no manifest.json"),
        ({"markdown": Path("nowhere/edge.md")}, "nowhere/edge.md cannot be written: there is no folder nowhere"),
        ({"client_core": 999}, "core 999 cannot be used; the cores are "),
    ],
)
def test_what_cannot_be_run_is_refused(importable: None, choices: dict[str, Any], said: str) -> None:
    """Before anything runs, in words that name the value and what is allowed."""
    from hostile.app import Choices

    with pytest.raises(ValueError, match=re.escape(said)):
        Choices(**choices)


def test_a_refusal_is_status_2() -> None:
    """It is told in one sentence, without a traceback."""
    done = attack("--seconds", "-1")
    assert done.returncode == 2
    assert "seconds must be above 0" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.fixture
def result(importable: None) -> Any:
    """What a trial without faults found."""
    from hostile.catalogue import ATTACKS
    from hostile.result import Result
    from hostile.serving import End, Usage
    from hostile.victim import Sample

    quiet, use = Sample([0.001] * 100), Usage(10**8, 20)
    return Result(
        attack=ATTACKS["new-sessions"],
        keys=True,
        quiet=quiet,
        during=Sample([0.002] * 100),
        after=quiet,
        lost=Counter(),
        newcomers=(3, 3),
        answers=True,
        statuses=Counter({"200": 7}),
        busy=0.5,
        before=use,
        highest=replace(use, memory=2 * 10**8),
        settled=use,
        promised=10**8,
        end=End(status=0, tracebacks=0, logged=0),
    )


def test_a_slow_answer_is_no_fault_and_an_error_is(result: Any) -> None:
    """Times are named and never judged; errors, a session that is lost, and a server that died are faults."""
    from hostile.table import findings
    from hostile.victim import Sample

    assert (result.faults, findings([result])) == ([], [])
    slow = replace(result, during=Sample([0.004, 0.02]))
    assert slow.faults == []
    assert findings([slow]) == ["new-sessions (keys): the victim's p99 is 20 times its quiet one"]
    grown = replace(result, highest=replace(result.before, memory=3 * 10**8))
    assert findings([grown]) == ["new-sessions (keys): memory grew by 200 MB; 100 MB are promised"]
    refused = replace(result, during=Sample([0.002], Counter({"503 overloaded": 2})))
    assert refused.faults == ["2 x 503 overloaded"]
    lost = Counter({"410 session_gone": 20})
    assert replace(result, lost=lost).faults == ["20 of the sessions left alone: 410 session_gone"]
    assert replace(result, lost=lost, keys=False).faults == []
    ends = [replace(result, end=replace(result.end, status=status)).faults for status in (None, 1, -9)]
    assert ends == [["killed after SIGTERM"], ["exit status 1"], ["exit status -9"]]
    assert replace(result, answers=False).faults == ["no answer after the attack"]
