"""Check a history: `python -m tests.histories.check FILE --bundle DIR`.

Prints a verdict for each session that a right server cannot have served so, with the session, its step, the lines in
the file and what went wrong, then a summary. Exit status: 0 if there is none, 1 if there is one, 2 if the file or the
bundle cannot be read. A session is judged up to its first fault; what follows cannot be told from its consequences.

A verdict begins with what went wrong:

    lost                    an acknowledged event is not in a later answer
    doubled                 an event was applied twice, or something that nobody asked for
    swapped                 events were applied in an order that they cannot have had
    mixed                   an answer has another session's name, event or numbers
    applied though refused  an event was refused, and is in a later answer
    restarted in silence    the session began again, and the answer does not say `new`
    lost session            the session is not there any more: `new`, 404 or 410
    stale read              a read tells less than what was acknowledged before it
    rewound                 the server says that the store has lost steps; --may-rewind allows and counts it
    untold                  with --may-rewind: a server had answered the lost steps and does not say so;
                            --may-be-silent allows it
    delete ignored          the session goes on after its deletion or end
    key answered differently, key forgotten, key confused
                            a repeat got another answer, was refused, or two requests were taken for one
    step not checked        an event was applied at another step than it expected
    wrong numbers, wrong items, wrong state, wrong answer, wrong refusal, another model
                            an answer is not the one due, and no mistake above explains it
    failed                  the server answered 500 `internal`
    undecided               too many calls have unknown outcomes; no order of them was found, and there may be one
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .explain import explain
from .history import Call, HistoryError, read
from .order import Search
from .places import Losses
from .replay import Replay, ReplayError


@dataclass(frozen=True)
class Verdict:
    """A session's first fault.

    Attributes:
        session: the session's id.
        step: the step at which the session stood.
        call: the call whose outcome is wrong.
        kind: the fault in a word or three, such as `doubled`.
        text: the case in words.
    """

    session: str
    step: int
    call: Call
    kind: str
    text: str

    def __str__(self) -> str:
        return f"Session {self.session}, step {self.step}, {self.call.lines}: {self.kind}. {self.text}"


def check(
    replay: Replay,
    sessions: Mapping[str, Sequence[Call]],
    *,
    forgetful: bool = False,
    losses: dict[str, Losses] | None = None,
    silent: bool = False,
) -> list[Verdict]:
    """Return a verdict for each session that a right server cannot have served so, in the order of the file.

    Args:
        replay: the model that the server has.
        sessions: the calls of each session, see `history.read`.
        forgetful: whether the server may let sessions go by itself.
        losses: if it is given, the store may lose the last steps of sessions. It gets those that went back, by session.
        silent: whether a server that had answered lost steps may go on without saying so.
    """
    verdicts = []
    for name, calls in sessions.items():
        search = Search(replay, calls, forgetful=forgetful, rewinding=losses is not None, silent=silent)
        stuck = search.run()
        if stuck is not None:
            fault = explain(replay, stuck, sessions)
            verdicts.append(Verdict(name, stuck.stand.life.step, stuck.call, *fault))
        elif losses is not None and any(search.losses):
            losses[name] = search.losses
        replay.forget()
    return sorted(verdicts, key=lambda verdict: verdict.call.at)


def went_back(losses: Mapping[str, Losses]) -> str:
    """Return how many sessions went back, in a line."""
    total = Losses()
    for one in losses.values():
        total = total.and_(one)
    return (
        f"{len(losses)} sessions went back, by {total.steps} steps in all: "
        f"{total.told} times the server said so, {total.untold} times it did not."
    )


def summary(sessions: Mapping[str, Sequence[Call]], verdicts: Sequence[Verdict]) -> str:
    """Return what was checked and what was found, in a line or two."""
    outcomes = Counter(call.outcome.outcome for calls in sessions.values() for call in calls)
    counts = ", ".join(f"{outcomes[outcome]} {outcome}" for outcome in ("ok", "refused", "unknown"))
    found = ", ".join(f"{count} {kind}" for kind, count in Counter(verdict.kind for verdict in verdicts).items())
    return f"{len(sessions)} sessions, {outcomes.total()} calls ({counts}): {found or 'nothing wrong'}."


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.histories.check", description=__doc__.partition("\n\n")[2])
    parser.add_argument("file", type=Path, help="the history")
    parser.add_argument("--bundle", type=Path, required=True, help="the folder of the bundle that was served")
    parser.add_argument(
        "--tolerance", type=_share, default=0.0, help="by how much numbers may differ: 0 on a CPU, 1e-5 on a GPU"
    )
    parser.add_argument(
        "--may-forget", action="store_true", help="the server may let sessions go: one of its bounds was reached"
    )
    parser.add_argument(
        "--may-rewind", action="store_true", help="the store may lose a session's last steps; it is counted how often"
    )
    parser.add_argument(
        "--may-be-silent",
        action="store_true",
        help="with --may-rewind: servers were started anew or share an address, so they need not say what is lost",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the file that the command line names; return the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.may_be_silent and not options.may_rewind:
        parser.error("--may-be-silent is given without --may-rewind; it is allowed only with that")
    try:
        sessions = read(options.file)
        losses: dict[str, Losses] | None = {} if options.may_rewind else None
        replay = Replay(options.bundle, options.tolerance)
        verdicts = check(replay, sessions, forgetful=options.may_forget, losses=losses, silent=options.may_be_silent)
    except (HistoryError, ReplayError) as error:
        print(error, file=sys.stderr)
        return 2
    for verdict in verdicts:
        print(verdict)
    print(summary(sessions, verdicts))
    if losses is not None:
        print(went_back(losses))
    return 1 if verdicts else 0


def _share(text: str) -> float:
    number = float(text)
    if not 0 <= number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not allowed; it must be at least 0 and below 1")
    return number


if __name__ == "__main__":
    raise SystemExit(main())
