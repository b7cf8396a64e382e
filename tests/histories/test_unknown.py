"""Bundles with an unknown item: what a right server predicts, ranks and tells, and mistakes with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from ..serve.bundles import LABELS, V, probabilities, write_bundle
from .check import check
from .history import Ask
from .labels import Labels
from .planted import Plants, expect, plant
from .replay import Replay, ReplayError
from .simulated import Script, advance, altered

UNKNOWN = LABELS.index("e")
PLANTS: Plants = {}


@pytest.fixture(scope="module", params=[0.0, 1e-6])
def unknowing(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Replay:
    """A model whose unknown item is `e`, compared bit for bit, and within a tolerance."""
    bundle = write_bundle(tmp_path_factory.mktemp("unknown") / "bundle", unknown="e")
    return Replay(bundle, request.param)


def test_the_unknown_item_is_not_predicted_and_takes_no_place(unknowing: Replay) -> None:
    """By the model in float64: a rank counts the items that may be predicted; the unknown item's own is the last."""
    life = unknowing.after(unknowing.fresh, ("a", "b", "c"))
    row = probabilities(["a", "b", "c"])[-1]
    assert life.logits is not None
    assert unknowing.ranking(life.logits) == [i for i in np.argsort(-row) if i != UNKNOWN]
    assert unknowing.ranking(life.logits, ["b", "5"]) == [i for i in np.argsort(-row) if i not in (UNKNOWN, 1, 6)]
    for place, label in enumerate(LABELS):
        (seen,) = unknowing.after(life, (label,)).seen
        rank = V if place == UNKNOWN else 1 + sum(row[i] > row[place] for i in range(V) if i != UNKNOWN)
        assert seen is not None
        assert seen[1:] == (rank, rank)
        assert abs(seen[0] - row[place]) < 1e-6


def test_strangers_are_told_as_they_were_sent(unknowing: Replay) -> None:
    """The newest strangers are kept as far as 4 KiB go; the others are told as the unknown item."""
    assert unknowing.after(unknowing.fresh, ("a", "zoe", 7)).recent == ("a", "zoe", 7)
    long, longer = "x" * 2000, "y" * 3000
    assert unknowing.after(unknowing.fresh, (long, longer, "b", long)).recent == ("e", "e", "b", long)
    assert unknowing.after(unknowing.fresh, ("zoe", "\u00fc" * 500)).recent == ("e", "\u00fc" * 500)
    many = unknowing.after(unknowing.fresh, tuple(range(100, 164)))
    assert many.recent == ("e",) * 13 + tuple(range(113, 164))


def test_an_integer_and_its_text_are_one_item_if_one_is_listed() -> None:
    """Each means itself if both are listed; what reads otherwise is another item."""
    labels = Labels(["a", 5, "5", 6, "-7"], "a")
    taken = {5: 1, "5": 2, 6: 3, "6": 3, "-7": 4, -7: 4, "06": 0, "+6": 0, " 6": 0, "\u0666": 0, "6" * 30: 0, 8: 0}
    assert {item: labels.taken(item) for item in taken} == taken
    assert labels.kept((5, "5", "6", -7, "06")) == (5, "5", 6, "-7", "06")
    assert labels.listed("06") is None
    assert Labels([1], None).taken(2) is None


def test_a_bundle_whose_unknown_item_is_not_listed_is_refused(tmp_path: Path) -> None:
    """The message names it."""
    with pytest.raises(ReplayError, match="zoe"):
        Replay(write_bundle(tmp_path / "bundle", unknown="zoe"))


def answered(script: Script, ask: Ask, **fields: Any) -> None:
    """Answer a call of anna with some fields changed."""
    line = script.sent("anna", ask)
    status, body = script.apply(line)
    script.answered(line, (status, altered(body, **fields)))


def chances(script: Script) -> list[float]:
    """The probabilities that anna's session gives to the items, by their ids."""
    return [float(chance) for chance in probabilities(["a", "b", "c", "d"])[-1]]


@plant(PLANTS, "wrong numbers")
def the_unknown_item_is_predicted(script: Script) -> None:
    row = chances(script)
    every = [{"item": LABELS[place], "probability": row[place]} for place in np.argsort(-np.array(row))]
    answered(script, Ask("predictions", top_k=7), predictions=every)


@plant(PLANTS, "wrong numbers")
def the_unknown_item_takes_a_place(script: Script) -> None:
    row = chances(script)
    below = next(place for place in np.argsort(-np.array(row)) if row[place] < row[UNKNOWN])
    seen = {"item": LABELS[below], "probability": row[below], "rank": 1 + sum(other > row[below] for other in row)}
    answered(script, advance(LABELS[below]), observed=[seen])


@plant(PLANTS, "wrong numbers")
def the_unknown_item_has_a_rank_of_its_own(script: Script) -> None:
    row = chances(script)
    seen = {"item": "e", "probability": row[UNKNOWN], "rank": 1 + sum(other > row[UNKNOWN] for other in row)}
    answered(script, advance("e"), observed=[seen])


@plant(PLANTS, "wrong numbers")
def a_stranger_is_not_called_unknown(script: Script) -> None:
    answered(script, advance("zoe"), observed=[{"item": "zoe", "probability": chances(script)[UNKNOWN], "rank": V}])


@plant(PLANTS, "wrong numbers")
def a_listed_item_is_called_unknown(script: Script) -> None:
    seen = {"item": "e", "probability": chances(script)[UNKNOWN], "rank": V, "unknown": True}
    answered(script, advance("e"), observed=[seen])


@plant(PLANTS, "wrong items")
def a_stranger_is_told_as_the_unknown_item(script: Script) -> None:
    script.event("anna", "zoe")
    answered(script, Ask("inspect"), recent=["a", "b", "c", "d", "e"])


@plant(PLANTS, "wrong items")
def a_text_is_told_as_an_integer(script: Script) -> None:
    script.event("anna", "5")
    answered(script, Ask("inspect"), recent=["a", "b", "c", "d", 5])


@pytest.mark.parametrize("name", PLANTS)
def test_a_mistake_with_the_unknown_item_is_found(tmp_path: Path, name: str) -> None:
    """What is left out, counted or recorded otherwise than the server promises gets a verdict."""
    expect(Replay(write_bundle(tmp_path / "bundle", unknown="e"), 1e-6), *PLANTS[name])


def test_strangers_and_moved_states_are_no_mistake(unknowing: Replay) -> None:
    """A state file names a stranger by the unknown item's id, so it is the unknown item where the state is restored."""
    script = Script(unknowing)
    script.event("anna", "a", "zoe", 7, "e")
    script.call("anna", Ask("predict", ("zoe", "zoe"), 7))
    script.call("anna", Ask("infer", ("e",), 7))
    script.call("anna", Ask("inspect"))
    status, body = script.call("anna", Ask("save"))
    assert status == 200
    script.call("bert", Ask("restore", file=body))
    _, told = script.call("bert", Ask("inspect"))
    assert msgspec.json.decode(told)["recent"] == ["a", "e", "e", "e", "e"]
    assert not check(unknowing, script.calls())
