"""Mistakes of a server that tests plant into the history of a right one."""

from __future__ import annotations

from collections.abc import Callable

from .check import check
from .replay import Life, Replay
from .simulated import Script

Plant = Callable[[Script], object]
Plants = dict[str, tuple[str, Plant]]


def plant(plants: Plants, kind: str) -> Callable[[Plant], Plant]:
    """Add a mistake to others, with the kind that the checker must give it."""

    def add(mistake: Plant) -> Plant:
        plants[mistake.__name__] = kind, mistake
        return mistake

    return add


def prelude(script: Script) -> None:
    """Let two sessions consume some items, as a right server does it."""
    for step, (item, other) in enumerate(zip("abcd", "ecab", strict=True)):
        script.event("anna", item, key=f"k{item}")
        script.event("bert", other, expected_step=step)


def spoil(script: Script, life: Life, name: str = "anna") -> None:
    """Put another life in a session's place."""
    script.server.sessions[name].life = life


def life(script: Script, *items: str) -> Life:
    """A life in which each item is an event."""
    walked = script.server.replay.fresh
    for item in items:
        walked = script.server.replay.after(walked, (item,))
    return walked


def expect(replay: Replay, kind: str, mistake: Plant) -> None:
    """Assert that a mistake gives a verdict of its kind first, and none at a call from before the mistake."""
    script = Script(replay)
    prelude(script)
    right = len(script.lines)
    assert not check(replay, script.calls())
    mistake(script)
    verdicts = check(replay, script.calls())
    assert verdicts, "nothing was found"
    assert verdicts[0].kind == kind, verdicts
    assert all(verdict.call.at > right for verdict in verdicts)
