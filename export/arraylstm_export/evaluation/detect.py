"""Finding sessions that are anomalies, from files to figures."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from arraylstm.data import DataOptions
from arraylstm_export.arrays import Array
from arraylstm_export.bundle.notes import note
from arraylstm_export.errors import ExportError
from arraylstm_export.evaluation.anomalies import (
    Curves,
    Detection,
    Events,
    Score,
    Threshold,
    choose,
    expected_alarms,
    score_events,
)
from arraylstm_export.evaluation.files import encoded, names, read, read_labels
from arraylstm_export.evaluation.served import Served
from arraylstm_export.evaluation.sessions import Encoder, Policy

KEY = "anomalies"
"""Where the manifest has the threshold."""

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Options:
    """How anomalies are found."""

    normal: Path | None = None
    """Event file of normal sessions that the model was not trained on: the threshold is chosen on them. False alarms
    are counted with thresholds that are chosen on one half and judge the other. Without it, the bundle's own threshold
    is taken."""
    false_alarms: float = 0.005
    """Share of normal sessions that may be taken for anomalies."""
    score: Score = "rank"
    """What a session is judged by: the highest rank of its events, surprise (-log of the probability), or product of
    both."""
    anomalous: Path | None = None
    """Event file of sessions that are known to be anomalies."""
    labels: Path | None = None
    """File with a line for each session of DATA, in its order: 1 or anomaly, 0 or normal."""
    scores: Path | None = None
    """File to write a JSON line to for each session of DATA and --anomalous: its score, and those of its events."""
    keep: bool = True
    """Write the threshold into the bundle's manifest, for whoever reads /v1/model."""

    def __post_init__(self) -> None:
        """Raise ValueError for a share of false alarms that is none."""
        if not 0 <= self.false_alarms < 1:
            raise ValueError(f"false_alarms must be at least 0 and below 1, got {self.false_alarms!r}")


@dataclass(frozen=True)
class Scored:
    """The sessions of files and what they score; `values` (N,) float64 are the sessions' scores."""

    path: str
    sessions: list[list[str]]
    events: list[Events]
    values: Array


def detect(
    bundle: Path, data: Sequence[Path], options: Options, reading: DataOptions, policy: Policy | None, say: Say
) -> dict[str, Any]:
    """Choose a threshold from normal sessions, or take the bundle's, and judge other sessions by it.

    Returns:
        Figures as values for JSON; docs/evaluation.md says what they are.

    Raises:
        ExportError: a file does not fit, the bundle was changed, or it has no threshold and none is to be chosen.
        DataError: a file cannot be read as sessions.
    """
    _check(data, options)
    served = Served(bundle)
    encode = Encoder(served.vocabulary, policy or ("skip" if served.vocabulary.unknown_id is None else "model"))

    def scored(paths: Sequence[Path], score: Score) -> Scored | None:
        if not paths:
            return None
        sessions, words = read(paths, reading)
        say(words)
        events = score_events(served, encoded(sessions, encode, names(paths)))
        return Scored(names(paths), sessions, events, np.array([each.highest(score) for each in events]))

    if options.normal is None:
        threshold, normal_values = _kept(served, reading, bundle), np.zeros(0)
    else:
        normal = scored([options.normal], options.score)
        assert normal is not None
        threshold, normal_values = _chosen(normal.values, options, reading), normal.values
    anomalous = [options.anomalous] if options.anomalous else []
    files = [each for each in (scored(paths, threshold.score) for paths in (data, anomalous)) if each]
    labels = None
    if options.labels is not None and data:
        labels = read_labels(options.labels, len(files[0].values), names(data))
    found = _figures(threshold, normal_values, files, labels, options.anomalous)
    if options.scores is not None:
        _write_scores(options.scores, files, threshold)
    if options.normal is not None and options.keep:
        note(bundle, KEY, threshold.fields())
    return found


def _check(data: Sequence[Path], options: Options) -> None:
    if options.labels is not None and not data:
        raise ExportError("--labels says which sessions of DATA are anomalies: give an event file too")
    if options.normal is None and not data and options.anomalous is None:
        raise ExportError("--anomalies needs sessions: give DATA, --normal FILE, --anomalous FILE, or several of them")


def _chosen(normal: Array, options: Options, reading: DataOptions) -> Threshold:
    level = choose(normal, options.false_alarms)
    return Threshold(
        options.score, level, options.false_alarms, len(normal), reading.session_end, reading.session_start
    )


def _kept(served: Served, reading: DataOptions, bundle: Path) -> Threshold:
    """Return the threshold in the bundle's manifest."""
    fields = served.manifest.content.get(KEY)
    if fields is None:
        raise ExportError(f"{bundle}: has no threshold yet: give --normal FILE, normal sessions to choose it from")
    threshold = Threshold(**fields)
    for name in ("session_end", "session_start"):
        chosen, flag = getattr(threshold, name), f"--{name.replace('_', '-')}"
        if chosen != getattr(reading, name):
            remedy = f"leave out {flag}" if chosen is None else f"{flag} {chosen}"
            raise ExportError(f"{bundle}: its threshold was chosen with other {name[8:]}s of sessions: {remedy}")
    return threshold


def _figures(
    threshold: Threshold, normal: Array, files: list[Scored], labels: Array | None, anomalous: Path | None
) -> dict[str, Any]:
    """Return what the threshold gives on normal sessions, on files without labels, and on all that have labels."""
    found: dict[str, Any] = {"threshold": threshold.fields(), "files": []}
    known = [(np.zeros(0), np.zeros(0, bool))]
    for each in files:
        above = int((each.values > threshold.threshold).sum())
        found["files"].append({"file": str(each.path), "sessions": len(each.values), "anomalies": above})
        if anomalous is not None and each.path == str(anomalous):
            known.append((each.values, np.ones(len(each.values), bool)))
        elif labels is not None:
            known.append((each.values, labels))
    alarms = expected_alarms(normal, threshold.false_alarms)
    if len(normal):
        found["normal"] = {"sessions": len(normal), "false_alarms": alarms, "share": alarms / len(normal)}
    values, truth = (np.concatenate(each) for each in zip(*known, strict=True))
    everything, anomalies = np.concatenate([values, normal]), np.concatenate([truth, np.zeros(len(normal), bool)])
    if anomalies.any() and not anomalies.all():
        curves = Curves.of(everything, anomalies)
        detection = Detection.of(values, truth, threshold.threshold).with_normal(len(normal), alarms)
        found["detection"] = {**detection.figures(), **curves.figures()}
        found["curves"] = {name: getattr(curves, name).tolist() for name in ("false_alarms", "recall", "precision")}
    return found


def _write_scores(path: Path, files: list[Scored], threshold: Threshold) -> None:
    with path.open("w", encoding="utf-8") as file:
        for scored in files:
            for number, (session, events, value) in enumerate(
                zip(scored.sessions, scored.events, scored.values.tolist(), strict=True), start=1
            ):
                line = {
                    "file": str(scored.path),
                    "session": number,
                    "score": _finite(value),
                    "anomaly": value > threshold.threshold,
                    "events": [
                        {"item": item, "rank": None if math.isnan(rank) else int(rank), "surprise": _finite(nats)}
                        for item, rank, nats in zip(session, events.ranks.tolist(), events.nats.tolist(), strict=True)
                    ],
                }
                file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _finite(value: float) -> float | None:
    """Return a number that JSON has; None for no number, and for the infinite surprise of an item left out."""
    return value if math.isfinite(value) else None
