"""The commands on a session as a whole: look at it, remove it, save and restore its state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from arraylstm_serve.sessions.commands import Change, Command, Outcome, Render, Slow, Turn
from arraylstm_serve.sessions.predictions import Write, predict_in_pieces
from arraylstm_serve.sessions.session import Session
from arraylstm_serve.sessions.state_file import dump, parse


class Peek(Command, frozen=True, gc=False, kw_only=True):
    """Return a session's predictions without changing the session."""

    top_k: int
    render: Render
    write: Write

    def begin(self, turn: Turn) -> Slow:
        """See `Command.begin`; it may raise `unknown_session`."""
        self.require_begun(turn.session)
        return self._predict(turn)

    def _predict(self, turn: Turn) -> Slow:
        session, model = turn.session, turn.model
        ranking, written = yield from predict_in_pieces(model, session.slot, model.selection(self.top_k), self.write)
        outcome = Outcome(self.session_id, session.step, session.state, (), (), ranking, session.slot, written)
        return Change(None, self.render(model, outcome))


class Inspect(Command, frozen=True, gc=False, kw_only=True):
    """Describe where a session stands, as committed, at once; this does not count as a use of it."""

    describe: Callable[[str, Session], bytes]

    waits = False
    uses = False
    reads_state = False

    def begin(self, turn: Turn) -> Change:
        """See `Command.begin`; it may raise `unknown_session`."""
        self.require_begun(turn.session)
        return Change(None, self.describe(self.session_id, turn.session))


class Remove(Command, frozen=True, gc=False, kw_only=True):
    """Remove a session and its remembered answers; only the empty answer to this command's own key is remembered."""

    reads_state = False

    def begin(self, turn: Turn) -> Change:
        """See `Command.begin`; it may raise `unknown_session`."""
        self.require_begun(turn.session)
        return Change(turn.session.forgotten(turn.now), b"")


class Save(Command, frozen=True, gc=False, kw_only=True):
    """Return a session's state as a file; the session also continues here."""

    def begin(self, turn: Turn) -> Change:
        """See `Command.begin`; it may raise `unknown_session`."""
        session, model = turn.session, turn.model
        self.require_begun(session)
        recent = model.bundle.vocabulary.encode(session.recent)
        return Change(None, dump(model.read(session.slot), recent, session.step, session.model))


class Restore(Command, frozen=True, gc=False, kw_only=True):
    """Give a session the state in a file, or begin the session with it; remembered answers stay."""

    file: bytes
    describe: Callable[[str, Session], bytes]

    reads_state = False
    counted_as = "restored"

    @property
    def asked(self) -> Any:
        """See `Command.asked`."""
        return "restore", self.file

    def begin(self, turn: Turn) -> Change:
        """See `Command.begin`; it may raise `model_mismatch`, `invalid_state` or `capacity`."""
        model = turn.model
        state = parse(self.file, model.fingerprint, model.engine.shapes)
        slot = turn.acquire()
        model.write(slot, state.tensors)
        recent = model.vocabulary.decode(state.recent)
        after = turn.session.given(slot, model.fingerprint, state.step, recent, turn.now, turn.caller.client)
        return Change(after, self.describe(self.session_id, after))
