"""The checker: its verdicts, what it allows, and its command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from ..serve.bundles import LABELS, write_bundle
from .check import check, main
from .history import FORMAT, Header, Line, Outcome, Sent
from .planted import life, prelude, spoil
from .replay import Replay
from .simulated import Script, advance, altered
from .test_events_planted import a_session_is_gone, a_session_is_not_there_any_more, an_event_is_applied_twice


def test_a_verdict_names_session_step_lines_and_what_happened(replay: Replay) -> None:
    """The text can be followed into the file."""
    script = Script(replay)
    prelude(script)
    an_event_is_applied_twice(script)
    (verdict,) = check(replay, script.calls())
    assert str(verdict).startswith("Session anna, step 4, lines 18 and 19: doubled. ")
    assert "applied twice" in str(verdict)


def test_sessions_may_go_only_where_that_is_allowed(replay: Replay) -> None:
    """With `forgetful`, a session may go by itself, with its keys; it may still not continue wrongly."""
    script = Script(replay)
    prelude(script)
    a_session_is_not_there_any_more(script)
    script.event("anna", "d", key="kd")
    assert [verdict.kind for verdict in check(replay, script.calls())] == ["lost session"]
    assert not check(replay, script.calls(), forgetful=True)
    an_event_is_applied_twice(script)
    assert [verdict.kind for verdict in check(replay, script.calls(), forgetful=True)] == ["doubled"]


def test_numbers_may_differ_by_the_tolerance(replay: Replay) -> None:
    """On a GPU numbers may differ by 1e-5: less is right, more is wrong, and near ties may change places."""
    gpu = Replay(replay.bundle, tolerance=1e-5)
    for change, kinds in ((9e-6, []), (3e-5, ["wrong numbers"])):
        script = Script(replay)
        line = script.sent("anna", advance("a", "b"))
        status, body = script.apply(line)
        found = msgspec.json.decode(body)
        found["predictions"][0]["probability"] += change
        found["observed"][1]["probability"] -= change
        script.answered(line, (status, altered(body, **found)))
        assert [verdict.kind for verdict in check(gpu, script.calls())] == kinds
        assert check(replay, script.calls())


def test_many_unknown_outcomes_end_in_a_verdict(replay: Replay) -> None:
    """Where more orders are possible than can be tried, the checker says that it did not decide."""
    script = Script(replay)
    prelude(script)
    for number in range(40):
        script.lost(script.sent("anna", advance(LABELS[number % 5])))
    spoil(script, life(script, *"abcdeedcbaabcdeab"))
    script.event("anna", "c")
    (verdict,) = check(replay, script.calls())
    assert verdict.kind == "undecided"
    assert "The answer is at step 18" in verdict.text


class TestCommand:
    """`python -m tests.histories.check`."""

    def write(self, path: Path, *lines: Line | str, end: str = "\n") -> Path:
        """Write a file of lines."""
        texts = [line if isinstance(line, str) else msgspec.json.encode(line).decode() for line in lines]
        path.write_text("\n".join(texts) + end)
        return path

    @pytest.fixture
    def bundle(self, tmp_path: Path) -> Path:
        """A bundle."""
        return write_bundle(tmp_path / "bundle")

    def test_a_right_history_is_0_and_a_wrong_one_1(self, tmp_path: Path, bundle: Path, capsys: Any) -> None:
        """The last line sums up; each verdict is a line before it."""
        script = Script(Replay(bundle))
        prelude(script)
        file = self.write(tmp_path / "file", Header(FORMAT), *script.lines)
        assert main([str(file), "--bundle", str(bundle)]) == 0
        assert capsys.readouterr().out == "2 sessions, 8 calls (8 ok, 0 refused, 0 unknown): nothing wrong.\n"
        a_session_is_gone(script)
        file = self.write(tmp_path / "file", Header(FORMAT), *script.lines)
        assert main([str(file), "--bundle", str(bundle)]) == 1
        first, last = capsys.readouterr().out.splitlines()
        assert first.startswith(
            "Session anna, step 4, lines 18 and 19: lost session. It was refused with 'session_gone'"
        )
        assert last == "2 sessions, 9 calls (8 ok, 1 refused, 0 unknown): 1 lost session."
        assert main([str(file), "--bundle", str(bundle), "--may-forget"]) == 0

    def test_lost_steps_are_counted_and_silence_is_allowed_apart(
        self, tmp_path: Path, bundle: Path, capsys: Any
    ) -> None:
        """A server that had answered what is lost must say so, unless --may-be-silent, which needs --may-rewind."""
        script = Script(Replay(bundle))
        prelude(script)
        spoil(script, life(script, *"ab"))
        script.event("anna", "e")
        command = [str(self.write(tmp_path / "file", Header(FORMAT), *script.lines)), "--bundle", str(bundle)]
        assert main([*command, "--may-rewind"]) == 1
        assert "untold. The server goes on from before step 4" in capsys.readouterr().out
        assert main([*command, "--may-rewind", "--may-be-silent"]) == 0
        assert "1 sessions went back, by 2 steps in all: 0 times the server said so, 1" in capsys.readouterr().out
        with pytest.raises(SystemExit) as ended:
            main([*command, "--may-be-silent"])
        assert ended.value.code == 2
        assert "without --may-rewind" in capsys.readouterr().err

    def test_a_history_may_end_in_the_middle_of_a_line(self, tmp_path: Path, bundle: Path) -> None:
        """A killed workload leaves calls without an outcome, and perhaps a line without an end."""
        sent = Sent(1, "anna", advance("a"))
        file = self.write(tmp_path / "file", Header(FORMAT), sent, '{"line":"outc', end="")
        assert main([str(file), "--bundle", str(bundle)]) == 0

    @pytest.mark.parametrize(
        ("lines", "message"),
        [
            ([], "file is empty"),
            ([Header("other-2")], "the format 'other-2'; this checker reads 'arraylstm-history-1'"),
            ([Sent(1, "a", advance("a"))], "Line 1 of"),
            ([Header(FORMAT), "no JSON"], "Line 2 of"),
            ([Header(FORMAT), '{"line": "sent", "call": 1}'], "Line 2 of"),
            ([Header(FORMAT), Header(FORMAT)], "out of place"),
            ([Header(FORMAT), Outcome(1, "ok")], "Line 2 is the outcome of call 1, which was not sent"),
            ([Header(FORMAT), *[Sent(1, "a", advance("a"))] * 2], "Line 3: call 1 was sent before, in line 2"),
            ([Header(FORMAT), Sent(1, "a", advance("a")), *[Outcome(1, "unknown")] * 2], "Line 4 is a second outcome"),
        ],
    )
    def test_what_is_no_history_is_2_and_its_line_named(
        self, tmp_path: Path, bundle: Path, capsys: Any, lines: list[Line | str], message: str
    ) -> None:
        """Nothing is misread in silence."""
        file = self.write(tmp_path / "file", *lines, end="\n" if lines else "")
        assert main([str(file), "--bundle", str(bundle)]) == 2
        assert message in capsys.readouterr().err

    def test_a_missing_file_or_bundle_is_2(self, tmp_path: Path, bundle: Path, capsys: Any) -> None:
        """The message names what is missing."""
        assert main([str(tmp_path / "none"), "--bundle", str(bundle)]) == 2
        assert "none cannot be read: No such file" in capsys.readouterr().err
        file = self.write(tmp_path / "file", Header(FORMAT))
        assert main([str(file), "--bundle", str(tmp_path / "no")]) == 2
        assert "is not a bundle" in capsys.readouterr().err

    @pytest.mark.parametrize("text", ["-1", "nan", "2", "some"])
    def test_a_tolerance_that_makes_no_sense_is_2(self, bundle: Path, capsys: Any, text: str) -> None:
        """The message has the value."""
        with pytest.raises(SystemExit) as ended:
            main(["file", "--bundle", str(bundle), "--tolerance", text])
        assert ended.value.code == 2
        assert text in capsys.readouterr().err
