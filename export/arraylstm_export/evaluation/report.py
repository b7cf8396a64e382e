"""One HTML page of an evaluation: its figures as tables, and pictures."""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from arraylstm_export.errors import ExportError

STYLE = """body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; color: #222 }
table { border-collapse: collapse; margin: 1rem 0 } td, th { padding: .2rem .8rem; text-align: right }
th { border-bottom: 1px solid #888 } td:first-child, th:first-child { text-align: left } svg { max-width: 100% }"""
SHOWN = ("hit", "mrr", "ndcg", "recall", "coverage", "popularity")


def check(path: Path | None) -> None:
    """Raise ExportError if a page cannot be made and is wanted."""
    if path is not None and find_spec("matplotlib") is None:
        raise ExportError('--report draws pictures with matplotlib: pip install "arraylstm-serving[plot]"')


def page(found: Mapping[str, Any]) -> str:
    """Return the page for what `arraylstm-evaluate` found, as --json has it; it loads nothing from elsewhere."""
    parts = _of_predictors(found) if "predictors" in found else _of_detection(found)
    title = escape(f"Evaluation of {found['bundle']}")
    body = "\n".join(parts)
    head = f'<meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body><h1>{title}</h1>\n{body}\n</body></html>\n'


def _of_predictors(found: Mapping[str, Any]) -> Iterator[str]:
    predictors = found["predictors"]
    model = predictors[0]
    depth = max(int(name.partition("@")[2]) for name in model["all"] if "@" in name)
    counts = f"{model['predictions']:,} predictions, {model['unknown']:,} of unknown items"
    yield f"<p>{escape(found['data'])}: {counts}.</p>"
    for lists, title in (("all", "All items"), ("without_current", "Without the current item")):
        yield f"<h2>{title}</h2>"
        rows = [[each["name"], *(each[lists][f"{name}@{depth}"] for name in SHOWN)] for each in predictors]
        yield _table(["", *(f"{name}@{depth}" for name in SHOWN)], rows)
    yield "<h2>By position in the session</h2>"
    yield _picture(lambda axes: _bars(axes, model["by_position"], "positions", depth, "items before"))
    if model["by_popularity"]:
        yield "<h2>By popularity: quarters of the events, the most frequent items first</h2>"
        yield _picture(lambda axes: _bars(axes, model["by_popularity"], "quarter", depth, "quarter"))
    if model["calibration"]:
        yield "<h2>Calibration of the item recommended first</h2>"
        yield _picture(lambda axes: _calibration(axes, model["calibration"]))
    if len(predictors) > 1:
        yield "<h2>The model and each baseline</h2>"
        names = [*predictors[1]["compared"]]
        compared = [[each["name"], *(_difference(each["compared"][name]) for name in names)] for each in predictors[1:]]
        yield _table(["model minus", *(name.replace("_", " ") for name in names)], compared)


def _difference(compared: Mapping[str, Any]) -> str:
    low, high = compared["low"], compared["high"]
    return f"{compared['difference']:+.4f} ({low:+.4f} to {high:+.4f}), {compared['verdict']}"


def _of_detection(found: Mapping[str, Any]) -> Iterator[str]:
    rows = [[name.replace("_", " "), value] for name, value in found["threshold"].items()]
    yield "<h2>Threshold</h2>" + _table(["", ""], rows)
    if "detection" not in found:
        return
    rows = [[name.replace("_", " "), value] for name, value in found["detection"].items()]
    yield "<h2>Anomalies</h2>" + _table(["", ""], rows)
    curves = found["curves"]
    yield "<h2>ROC: anomalies found against false alarms</h2>"
    yield _picture(lambda axes: _curve(axes, curves["false_alarms"], curves["recall"], "false alarms", "recall"))
    yield "<h2>Precision and recall</h2>"
    yield _picture(lambda axes: _curve(axes, curves["recall"], curves["precision"], "recall", "precision"))


def _table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    top = "".join(f"<th>{escape(head)}</th>" for head in heads)
    lines = "\n".join("<tr>" + "".join(f"<td>{escape(_shown(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{top}</tr>\n{lines}</table>"


def _shown(value: Any) -> str:
    return "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


def _picture(draw: Callable[[Any], None]) -> str:
    """Return what `draw` puts on matplotlib axes, as an SVG element."""
    from matplotlib.figure import Figure  # only the extra `plot` installs it

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    draw(figure.subplots())
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()[file.getvalue().index("<svg") :]


def _bars(axes: Any, rows: Sequence[Mapping[str, Any]], label: str, depth: int, words: str) -> None:
    names = [str(row[label]) for row in rows]
    for shift, name in ((-0.2, f"hit@{depth}"), (0.2, f"mrr@{depth}")):
        axes.bar([place + shift for place in range(len(rows))], [row[name] for row in rows], 0.4, label=name)
    axes.set_xticks(range(len(rows)), names)
    axes.set_xlabel(words)
    axes.legend()


def _calibration(axes: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    axes.plot([0, 1], [0, 1], ":", color="gray")
    axes.plot([row["probability"] for row in rows], [row["right"] for row in rows], "o-")
    axes.set(xlabel="probability", ylabel="share that was right", xlim=(0, 1), ylim=(0, 1))


def _curve(axes: Any, x: Sequence[float], y: Sequence[float], x_words: str, y_words: str) -> None:
    axes.step(x, y, where="post")
    axes.set(xlabel=x_words, ylabel=y_words, xlim=(-0.02, 1.02), ylim=(0, 1.05))
