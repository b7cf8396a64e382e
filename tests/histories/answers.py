"""How an answer is judged: against the answer that is due, field by field, and number by number against the replay."""

from __future__ import annotations

from typing import Any, NamedTuple

from .history import Ask, Call
from .inference import tensors_fault
from .replay import Floats, Life, Replay, ReplayError, probabilities
from .rules import DECIDED_BY_THE_SESSION, REWOUND, Due, Refusal, Stand


class Fault(NamedTuple):
    """Something that a right server never does: its kind in a word or three, and the case in words."""

    kind: str
    text: str


def judge(replay: Replay, stand: Stand, due: Due | Refusal, call: Call) -> Fault | None:
    """Return what is wrong with the outcome of a call, given what was due; None if nothing is."""
    if isinstance(due, Refusal):
        return _accepted(stand, due, call) if call.ok else _refusal(stand, due, call)
    if not call.ok:
        return _refused(stand, due, call)
    if due.body is not None and due.body != call.outcome.body:
        return Fault("key answered differently", "The answer differs from the first answer under the same key.")
    return answer_fault(replay, due, call)


def answer_fault(replay: Replay, due: Due, call: Call) -> Fault | None:
    """Return what is wrong with an answer, given the one that is due."""
    if due.ask.do == "delete":
        return None if not call.outcome.body else Fault("wrong answer", "The answer to a DELETE is not empty.")
    if due.ask.do == "save":
        return _file_fault(replay, due, call)
    found = call.content
    if not isinstance(found, dict):
        return Fault("wrong answer", "The answer is not a JSON object.")
    if due.ask.do == "infer":
        return _inference_fault(replay, due, call)
    if due.ask.do != "predict" and found.get("session_id") != call.sent.session:
        return Fault("mixed", f"The answer is one of session {found.get('session_id')}.")
    if found.get("model") != replay.fingerprint:
        return Fault("another model", f"The answer is by {found.get('model')}; the bundle is {replay.fingerprint}.")
    if due.ask.do != "predict" and _typed(found.get("step")) != (int, due.after.step):
        return _step_fault(due, found.get("step"))
    if due.ask.do in ("inspect", "restore"):
        same = _list_typed(found.get("recent")) == [_typed(item) for item in due.after.recent]
        return None if same else Fault("wrong items", "`recent` does not have the session's last items.")
    if due.ask.do != "predict" and found.get("state") != due.state:
        text = f"The answer calls the session {found.get('state')!r}; it is {due.state!r}."
        return Fault("lost session" if found.get("state") == "new" else "wrong state", text)
    wrong = numbers_fault(replay, due.ask, due.after, found)
    return None if wrong is None else Fault("wrong numbers", wrong)


def _inference_fault(replay: Replay, due: Due, call: Call) -> Fault | None:
    """Return what is wrong with an answer of /v2, which has neither a name nor a state."""
    if call.told != due.after.step:
        return _step_fault(due, call.told)
    wrong = tensors_fault(replay, due.ask, due.after, call.content)
    return None if wrong is None else Fault("wrong numbers", wrong)


def numbers_fault(replay: Replay, ask: Ask, after: Life, found: dict[str, Any]) -> str | None:
    """Return which number of an answer is not the replay's; None if all are."""
    if not all(isinstance(found.get(name), list) for name in ("observed", "predictions")):
        return "The answer has no list `observed` or `predictions`."
    try:
        return _observed_fault(replay, ask, after, found["observed"]) or _predictions_fault(
            replay, ask, after, found["predictions"]
        )
    except (KeyError, TypeError, IndexError):
        return "`observed` or `predictions` have entries of another form."


def _observed_fault(replay: Replay, ask: Ask, after: Life, found: list[dict[str, Any]]) -> str | None:
    items = ask.items if ask.do in ("advance", "predict") else ()
    if [_typed(entry["item"]) for entry in found] != [_typed(item) for item in items]:
        return "`observed` does not have the items sent."
    for entry, seen in zip(found, after.seen):
        stranger = replay.items.listed(entry["item"]) is None
        if entry.get("unknown", False) is not stranger:
            return f"`observed` says that {entry['item']!r} is {'not ' if stranger else ''}unknown; it is the opposite."
        chance, rank = entry["probability"], entry["rank"]
        if seen is None or chance is None or rank is None:
            right = seen is None and chance is None and rank is None
        else:
            right = abs(chance - seen[0]) <= replay.tolerance and seen[1] <= rank <= seen[2]
        if not right:
            return f"`observed` gives {entry['item']!r} {chance} and rank {rank}; the model gives {seen and seen[:2]}."
    return None


def _predictions_fault(replay: Replay, ask: Ask, after: Life, entries: list[dict[str, Any]]) -> str | None:
    """Return which of the items and probabilities predicted is not the replay's; None if all are."""
    assert after.logits is not None
    found = [(entry["item"], entry["probability"]) for entry in entries]
    chances = probabilities(after.logits)
    allowed = [(replay.labels[index], float(chances[index])) for index in replay.ranking(after.logits, ask.exclude)]
    due = allowed[: ask.top_k]
    true = {_typed(label): chance for label, chance in allowed}
    if len(found) != len(due) or len({_typed(item) for item, _ in found}) != len(due):
        return f"`predictions` has {len(found)} items; {len(due)} different ones are due."
    for (item, chance), (label, expected) in zip(found, due):
        same = replay.tolerance > 0 or _typed(item) == _typed(label)  # near ties may change places
        near = max(abs(chance - expected), abs(chance - true.get(_typed(item), 9.0)))
        if not same or near > replay.tolerance:
            return f"`predictions` has {item!r} with {chance} where the model has {label!r} with {expected}."
    return None


def _file_fault(replay: Replay, due: Due, call: Call) -> Fault | None:
    try:
        found = replay.restored(call.outcome.body)
    except ReplayError as error:
        return Fault("wrong answer", f"The state cannot be read: {error}.")
    if found.step != due.after.step:
        return _step_fault(due, found.step)
    if [replay.items.taken(item) for item in found.recent] != [replay.items.taken(item) for item in due.after.recent]:
        return Fault("wrong items", "The state file does not have the session's last items.")
    assert found.logits is not None
    assert due.after.logits is not None
    tensors = {"logits": (found.logits, due.after.logits)}
    tensors |= {name: (value, due.after.states[name]) for name, value in found.states.items()}
    for name, pair in tensors.items():
        if not _near(*pair, replay.tolerance):
            return Fault("wrong numbers", f"The tensor {name} in the state file is not the replay's.")
    return None


def _near(found: Floats, due: Floats, tolerance: float) -> bool:
    return found.shape == due.shape and bool((abs(found - due) <= tolerance).all())


def _step_fault(due: Due, found: Any) -> Fault:
    text = f"The answer is at step {found}; the session's items lead to step {due.after.step}"
    if not isinstance(found, int) or found > due.after.step:
        return Fault("doubled", f"{text}: something was applied twice, too early, or unasked.")
    if due.ask.do in ("advance", "infer"):
        return Fault("lost", f"{text}: acknowledged items are not in it.")
    return Fault("stale read", f"{text}: what was acknowledged before is not in it.")


def _accepted(stand: Stand, due: Refusal, call: Call) -> Fault:
    """Return the fault of an answer where a refusal was due."""
    if due.code == "unknown_session":
        why = "delete ignored" if stand.ended else "mixed"
        return Fault(why, "The server answers for a session that does not exist.")
    if due.code == "idempotency_key_reused":
        return Fault("key confused", f"The key {call.sent.key!r} was used before with another request.")
    where = f"at step {stand.life.step}" if stand.begun else "not there"
    text = f"It was applied though it expected step {call.ask.expected_step}; the session is {where}."
    return Fault("step not checked", text)


def _refusal(stand: Stand, due: Refusal, call: Call) -> Fault | None:
    """Return what is wrong with a refusal where one was due."""
    if due.code == "session_gone" and call.code == "step_conflict":
        return _conflict(stand, call)
    if due.code == "step_conflict" and call.code == "session_gone":
        return Fault("lost session", f"It was refused as if the session at step {due.step} did not exist.")
    if call.code == REWOUND:
        return rewound(stand, call)
    if call.code != due.code:
        return Fault("wrong refusal", f"It was refused with {call.code!r}; due is {due.code!r}.")
    if due.code == "step_conflict" and call.content.get("step") != due.step:
        return _conflict(stand, call)
    return None


def _conflict(stand: Stand, call: Call) -> Fault:
    """Return the fault of a step conflict that tells a step at which the session does not stand."""
    found, step = call.content.get("step"), stand.life.step
    kind = "doubled" if isinstance(found, int) and found > step else "lost"
    if stand.ended is not None and found == stand.ended.step:
        kind = "delete ignored"
    return Fault(kind, f"The refusal says that the session is at step {found}; it is at step {step}.")


def rewound(stand: Stand, call: Call) -> Fault:
    """Return the fault of a session of which acknowledged steps are gone, as the refusal says."""
    text = f"The server says that the store has lost steps, and that the session stands at step {call.told}; "
    return Fault("rewound", f"{text}it stood at step {stand.life.step}.")


def untold(stand: Stand, call: Call) -> Fault:
    """Return the fault of a server that goes on from an earlier step, and had itself answered what is lost."""
    text = f"The server goes on from before step {stand.life.step}, answered steps that are lost, and does not say so."
    return Fault("untold", text)


def _refused(stand: Stand, due: Due, call: Call) -> Fault:
    """Return the fault of a refusal where an answer was due."""
    code, step = call.code, stand.life.step
    if code == REWOUND:
        return rewound(stand, call)
    if call.sent.key is not None and stand.due(call.sent.key) is not None:
        return Fault("key forgotten", f"It was refused with {code!r}; its key had been answered before.")
    if code in ("unknown_session", "session_gone"):
        return Fault("lost session", f"It was refused with {code!r}, as if the session at step {step} did not exist.")
    if code == "step_conflict":
        return _conflict(stand, call)
    assert code in DECIDED_BY_THE_SESSION, code
    return Fault("key confused", f"It was refused with {code!r}, but its key is a new one.")


def _list_typed(items: Any) -> list[tuple[type, Any]] | None:
    return [_typed(item) for item in items] if isinstance(items, list) else None


def _typed(item: Any) -> tuple[type, Any]:
    return type(item), item
