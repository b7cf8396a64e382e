"""One and the same figures from training, from arraylstm-evaluate and from a running server."""

import asyncio
import math

import numpy as np
import pytest
import torch

from arraylstm import ArrayLSTMError
from arraylstm.training import evaluate as training_figures
from arraylstm_export.evaluation import measure, sessions
from arraylstm_export.evaluation.run import evaluate
from arraylstm_export.formats.onnx import StepGraph

from ...serve.harness import Harness
from .conftest import SESSIONS

CUTOFFS = (1, 5, 10)


def served(bundle, **settings):
    """What a server tells of every item but a session's first, as pairs of the answer before and the observation."""

    async def replay():
        harness, told = Harness(bundle, **settings), []
        for number, session in enumerate(SESSIONS):
            before = None
            for item in session:
                answer = (await harness.send(f"s{number}", item, top_k=max(CUTOFFS))).json()
                if before is not None:
                    told.append((before, answer["observed"][0]))
                before = answer if answer["step"] else None
        return told

    return asyncio.run(replay())


def figures_of(told):
    """Hits and reciprocal ranks by what was observed, hits by what was predicted, and the mean surprise."""
    lost = [each.get("unknown", False) for _, each in told]
    ranks = [math.inf if unknown else each["rank"] for unknown, (_, each) in zip(lost, told, strict=True)]
    predicted = [
        sum(each["item"] in [one["item"] for one in before["predictions"][:k]] for before, each in told) / len(told)
        for k in CUTOFFS
    ]
    observed = [sum(rank <= k for rank in ranks) / len(told) for k in CUTOFFS]
    assert predicted == observed
    rated = [-math.log(each["probability"]) for _, each in told if each["probability"] is not None]
    return [*observed, sum(1 / rank for rank in ranks) / len(told)], sum(rated) / len(rated)


def by_evaluate(found):
    """The same figures as arraylstm-evaluate has them."""
    (model,) = found
    return [*(model["all"][f"hit@{k}"] for k in CUTOFFS), model["all"]["mrr"]], model["loss"]


@pytest.mark.host_only("the device's ranks count the unknown item")
@pytest.mark.parametrize("name", ["known", "unknown"])
def test_figures_are_those_of_training_and_of_a_running_server(model_and_bundle, name):
    """On the same sessions, also where many items are unknown: these are no hit, and take no place before others."""
    model, bundle = model_and_bundle(name)
    found = evaluate(bundle, SESSIONS, cutoffs=CUTOFFS)
    trained = training_figures(model, [model.vocabulary.encode(session) for session in SESSIONS])
    shares, loss = by_evaluate(found)
    assert shares == pytest.approx([trained.top1, trained.top5, trained.top10, trained.mrr])
    assert loss == pytest.approx(trained.loss, rel=1e-5)
    seen, surprise = figures_of(served(bundle))
    assert shares == pytest.approx(seen)
    assert loss == pytest.approx(surprise, rel=1e-5)
    assert (found[0]["unknown"] > 20) == (name == "unknown")
    assert found[0]["predictions"] == trained.predictions


@pytest.mark.host_only("the device's ranks count the unknown item")
@pytest.mark.parametrize("name", ["unknown", "lacking"])
def test_figures_with_items_left_out_are_those_of_a_server_that_leaves_them_out(model_and_bundle, name):
    """An item that is left out counts as a prediction that failed, and moves nothing."""
    _, bundle = model_and_bundle(name)
    found = evaluate(bundle, SESSIONS, cutoffs=CUTOFFS, unknown_items="skip")
    told = served(bundle, unknown_items="skip")
    shares, loss = by_evaluate(found)
    seen, surprise = figures_of(told)
    assert found[0]["predictions"] == len(told)
    assert shares == pytest.approx(seen)
    assert loss == pytest.approx(surprise, rel=1e-5)


@pytest.mark.parametrize(("name", "policy"), [("lacking", "model"), ("lacking", "reject"), ("unknown", "reject")])
def test_an_unknown_item_is_refused_where_a_server_refuses_it(model_and_bundle, name, policy):
    """The message has the item, and how to go on."""
    with pytest.raises(ArrayLSTMError, match=r"unknown item '.+'; the model has \d+ items.*--unknown-items skip"):
        evaluate(model_and_bundle(name)[1], SESSIONS, unknown_items=policy)


@pytest.mark.parametrize("name", ["known", "unknown", "lacking"])
def test_figures_do_not_depend_on_how_the_work_is_cut(model_and_bundle, name, monkeypatch):
    """Down to a session and a step at a time, for the model and every baseline."""
    bundle = model_and_bundle(name)[1]
    whole = evaluate(bundle, SESSIONS[:8], SESSIONS[8:], unknown_items="skip")
    for module, bound in ((sessions, "ROWS"), (measure, "ROWS"), (measure, "WINDOW"), (sessions, "EVENTS")):
        monkeypatch.setattr(module, bound, 1)
    cut = evaluate(bundle, SESSIONS[:8], SESSIONS[8:], unknown_items="skip")
    assert [each["name"] for each in cut] == [
        "model",
        "popularity",
        "bigram",
        "symmetric bigram",
        "back-off n-gram",
        "VMIS-kNN",
    ]
    for one, other in zip(whole, cut, strict=True):
        assert flat(one) == pytest.approx(flat(other), rel=1e-5)


def flat(value, name=""):
    """All numbers in figures, by where they are."""
    if isinstance(value, dict):
        return {key: number for inner, each in value.items() for key, number in flat(each, f"{name}/{inner}").items()}
    if isinstance(value, list):
        return {
            key: number for place, each in enumerate(value) for key, number in flat(each, f"{name}/{place}").items()
        }
    return {name: value} if isinstance(value, (int, float)) else {}


def test_recall_counts_what_still_follows(model_and_bundle):
    """The share of a session's remaining different items, by a plain loop."""
    model, bundle = model_and_bundle("known")
    (found,) = evaluate(bundle, SESSIONS, cutoffs=(5,))
    shares = []
    for session in SESSIONS:
        ids = model.vocabulary.encode(session)
        logits, _ = model.unroll(torch.tensor([ids]))
        for place in range(len(ids) - 1):
            rest = set(ids[place + 1 :])
            best = np.argsort(-logits[0, place].detach().numpy(), kind="stable")[:5]
            shares.append(len(rest & set(best.tolist())) / len(rest))
    assert found["all"]["recall@5"] == pytest.approx(np.mean(shares))


def test_one_long_session_beside_short_ones_is_not_padded(model_and_bundle, monkeypatch):
    """The graph is run for the rows that have an item there, and for no other."""
    model, bundle = model_and_bundle("known")
    rows = []
    step = StepGraph.step

    def watched(graph, items, state):
        rows.append(len(items))
        return step(graph, items, state)

    monkeypatch.setattr(StepGraph, "step", watched)
    labels = model.vocabulary.labels
    evaluate(bundle, [labels[:1] * 400, *[labels[1:3]] * 63])
    assert sum(rows) <= 400 + 63 * 2
