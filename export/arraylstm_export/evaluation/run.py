"""An evaluation from files to figures."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from arraylstm.metrics import Tally
from arraylstm.vocabulary import Label
from arraylstm_export.errors import ExportError
from arraylstm_export.evaluation.baselines import Baseline, Neighbours, NGram, Training
from arraylstm_export.evaluation.files import encoded
from arraylstm_export.evaluation.measure import as_counts, measure
from arraylstm_export.evaluation.served import Served
from arraylstm_export.evaluation.sessions import Encoder, Policy
from arraylstm_export.evaluation.vmis import VMISKNN

ORDER = 10
"""The longest context of the back-off n-gram."""

OnBatch = Callable[[int], None]


def evaluate(
    bundle: str | Path,
    sessions: Sequence[Sequence[Label]],
    train: Sequence[Sequence[Label]] = (),
    *,
    cutoffs: Sequence[int] = (1, 5, 10, 20),
    unknown_items: Policy = "model",
    on_batch: OnBatch = lambda sessions: None,
) -> list[dict[str, Any]]:
    """Measure what a bundle's step graph predicts on sessions, beside baselines.

    Args:
        bundle: folder that `arraylstm-export` wrote.
        sessions: item labels, in order; the integer 5 and the text "5" mean the same unless both are labels.
        train: the sessions that the model was trained on; baselines are fitted on them. Without them there are none.
        cutoffs: the lengths of list to give figures for.
        unknown_items: what becomes of an item that the model has no label for, as `arraylstm-serve --unknown-items`.
        on_batch: called with the number of sessions done.

    Returns:
        Figures as values for JSON, of the model first; docs/evaluation.md says what they are.

    Raises:
        ExportError: no bundle, one that was changed, no session has a second item to predict, or an item is unknown to
            the model and is to be refused.
    """
    served = Served(Path(bundle))
    encode = Encoder(served.vocabulary, unknown_items)
    given = encoded(sessions, encode)
    training = _training(train, served)
    baselines = [] if training is None else _baselines(training)
    counts = None if training is None else as_counts(training.counts)
    unknown = served.vocabulary.unknown_id
    measured = measure(
        [served, *baselines],
        given,
        lambda: Tally(cutoffs, served.num_items, unknown, counts),
        num_items=served.num_items,
        unknown=unknown,
        on_batch=on_batch,
    )
    return [one.figures() for one in measured]


def _training(sessions: Sequence[Sequence[Label]], served: Served) -> Training | None:
    """Return the events that baselines count; items that the model does not know are its unknown item, or left out."""
    if not sessions:
        return None
    encode = Encoder(served.vocabulary, "skip" if served.vocabulary.unknown_id is None else "model")
    training = Training([encode(session) for session in sessions], served.num_items)
    if not len(training.followed):
        raise ExportError(
            f"none of {len(sessions)} sessions for the baselines has two items that the model knows; "
            "give those that it was trained on"
        )
    return training


def _baselines(training: Training) -> list[Baseline]:
    return [
        NGram(training, 0, "popularity"),
        NGram(training, 1, "bigram"),
        Neighbours(training),
        NGram(training, ORDER, "back-off n-gram"),
        VMISKNN(training),
    ]
