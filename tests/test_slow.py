"""The list of slow tests that `make test-fast` leaves out."""

import ast
from types import SimpleNamespace

from . import slow
from .conftest import ROOT


def test_every_test_in_the_list_exists():
    """A test that was renamed or moved would be fast again unnoticed: `make slow` writes the list anew."""
    listed = slow.IDS.read_text().splitlines()
    trees = {
        file: ast.parse((ROOT / file).read_text(encoding="utf-8")) for file in {id.split("::")[0] for id in listed}
    }
    known = {
        (file, node.name)
        for file, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    names = [(id.split("::")[0], name) for id in listed for name in id.split("::")[1:] if name != "runTest"]
    assert [name for name in names if name not in known and not name[1].startswith("Test")] == []


def test_tests_of_one_name_are_told_apart(tmp_path, monkeypatch):
    """Only the test that is listed gets the mark, in all its cases, and only it is listed by its time."""
    monkeypatch.setattr(slow, "IDS", tmp_path / "slow.txt")
    slow.IDS.write_text("tests/a.py::gone\ntests/a.py::test_x\n")
    stopwatch, cases = slow.Stopwatch(), ["tests/a.py::test_x[1]", "tests/a.py::test_x[b[c]]", "tests/b.py::test_x[1]"]
    marked = []
    slow.mark(
        [SimpleNamespace(nodeid=id, fixturenames=[], add_marker=lambda _, case=id: marked.append(case)) for id in cases]
    )
    assert marked == cases[:2]
    for id, seconds in zip(cases, (0.1, 0.2, 1.1)):
        stopwatch.pytest_runtest_logreport(SimpleNamespace(nodeid=id, duration=seconds))
    stopwatch.pytest_sessionfinish()
    assert slow.IDS.read_text() == "tests/a.py::gone\ntests/b.py::test_x\n"
