"""What the command line prints of an evaluation."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from arraylstm.console import make_table

LISTS = {"all": "All items", "without_current": "Without current"}

HEADS = {name: name for name in ("hit", "mrr", "ndcg", "recall")} | {"coverage": "cover", "popularity": "popular"}
"""The figures of a list, and their columns' heads, which keep the table within 80 columns."""


def quality_table(found: Sequence[Mapping[str, Any]], lists: str, depth: int) -> Table:
    """Return a row for each predictor: its figures for lists of one length."""
    table = make_table(f"{LISTS[lists]}, @{depth}", *HEADS.values(), *(["perpl."] if lists == "all" else []))
    for column in table.columns[1:]:
        column.justify = "right"
    for each in found:
        figures = each[lists]
        cells = [_number(figures[f"{head}@{depth}"]) for head in HEADS]
        table.add_row(each["name"], *cells, *([_perplexity(each["perplexity"])] if lists == "all" else []))
    return table


def comparison_lines(found: Sequence[Mapping[str, Any]], depth: int) -> list[str]:
    """Return a sentence for each figure: how the model compares with the best baseline, and how sure that is."""
    lines = []
    for lists, words in (("all", ""), ("without_current", ", without the current item")):
        for head, name in (("hit", f"hit@{depth}"), ("mrr", f"MRR@{depth}")):
            best = max(found[1:], key=lambda each: each[lists][f"{head}@{depth}"])
            key = head if lists == "all" else f"{head}_without_current"
            lines.append(f"{name}{words}: {_verdict(best['name'], best['compared'][key])}")
    return lines


def _verdict(name: str, compared: Mapping[str, Any]) -> str:
    difference, p = compared["difference"], compared["p"]
    measured = f"95 % interval {compared['low']:+.4f} to {compared['high']:+.4f}, p = {p:.2g}"
    if compared["verdict"] == "not sure":
        return f"the model is {difference:+.4f} from {name}, which may be chance ({measured})"
    return f"the model is surely {compared['verdict']} than {name}, by {abs(difference):.4f} ({measured})"


def groups_table(rows: Sequence[Mapping[str, Any]], label: str, depth: int) -> Table:
    """Return a row for each group of predictions."""
    heads = [f"hit@{depth}", f"mrr@{depth}", f"ndcg@{depth}"]
    table = make_table(label, "predictions", *heads)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(str(row[label]), f"{row['predictions']:,}", *(_number(row[head]) for head in heads))
    return table


def threshold_lines(found: Mapping[str, Any]) -> list[str]:
    """Return in words what the threshold is, and what it gives."""
    threshold = found["threshold"]
    chosen = f"chosen from {threshold['normal_sessions']:,} normal sessions"
    allowed = f"{threshold['false_alarms']:.2%} false alarms"
    score = {"both": "product of rank and surprise"}.get(threshold["score"], threshold["score"])
    judged = f"A session is an anomaly if its highest {score} is above {threshold['threshold']:g}"
    lines = [f"{judged}, {chosen} for at most {allowed}."]
    if threshold["normal_sessions"] * threshold["false_alarms"] < 1:
        lines.append(f"So few sessions allow no false alarm; {allowed} take {_needed(threshold)} or more.")
    if "normal" in found:
        normal = found["normal"]
        words = "by thresholds chosen on the other half of them"
        lines.append(f"False alarms, {words}: {normal['false_alarms']:,} of {normal['sessions']:,}.")
    lines += [
        f"{each['file']}: {each['anomalies']:,} of {each['sessions']:,} are anomalies." for each in found["files"]
    ]
    return lines


def _needed(threshold: Mapping[str, Any]) -> str:
    share = threshold["false_alarms"]
    return f"{math.ceil(1 / share):,} normal sessions" if share else "any number"


def detection_table(figures: Mapping[str, Any]) -> Table:
    """Return what a threshold finds."""
    table = make_table("anomalies found", "missed", "false alarms", "precision", "recall", "F1", "ROC AUC", "AP")
    shares = (figures[name] for name in ("precision", "recall", "f1", "roc_auc", "average_precision"))
    normal = figures["false_alarms"] + figures["passed"]
    alarms = f"{figures['false_alarms']:,} of {normal:,}"
    table.add_row(f"{figures['found']:,}", f"{figures['missed']:,}", alarms, *map(_number, shares))
    return table


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _perplexity(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
