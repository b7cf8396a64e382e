"""The whole path as users walk it: train on real sessions, export, serve, and compare every answer with PyTorch."""

import asyncio
import random
import re
from itertools import islice
from pathlib import Path

import httpx
import pytest
import torch

import arraylstm
import arraylstm.cli
import arraylstm_export.cli
from arraylstm import CELLS, Vocabulary
from arraylstm.data import DataOptions, read_sessions, split
from arraylstm.eventlog import generate_sessions
from arraylstm.training import TrainingOptions, fit

from .devices import Chosen
from .servers import ServerProcess

HDFS = Path(__file__).parents[2] / "shared" / "data" / "hdfs" / "train.txt"
SPLIT = (0.1, 0.2)  # the defaults of arraylstm-train: validation and held out, with seed 0
SESSIONS = 600
REPLAYED = 30
QUICK = ["--hidden-size", "16", "--embedding-size", "16", "--epochs", "1"]
CLOSE = 1e-5


@pytest.fixture(scope="module")
def event_log(tmp_path_factory):
    """Some HDFS block sessions, or generated ones where those are not beside the checkout."""
    path = tmp_path_factory.mktemp("log") / "events.txt"
    lines = HDFS.read_text().splitlines() if HDFS.is_file() else map(" ".join, generate_sessions(SESSIONS))
    path.write_text("\n".join(islice(lines, SESSIONS)))
    return path


@pytest.fixture
def serve():
    """Start servers over bundles; they are stopped after the test."""
    servers = []

    def start(bundle):
        servers.append(ServerProcess(bundle))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def train(event_log, tmp_path):
    """Train a registry cell with the program's own function, which knows the rows that this test process has added."""

    def run(cell):
        assert arraylstm.cli.app([str(event_log), "-o", str(tmp_path / "model.pt"), "--cell", cell, *QUICK]) == 0
        return arraylstm.load(tmp_path / "model.pt")

    return run


@pytest.fixture
def export(tmp_path):
    """Export model.pt with the program's own function."""

    def run(*arguments):
        tokens = [str(tmp_path / "model.pt"), "-o", str(tmp_path / "bundle"), "--horizon", "100", *arguments]
        assert arraylstm_export.cli.app(tokens) == 0
        return tmp_path / "bundle"

    return run


@pytest.fixture
def sessions(event_log):
    """Some of the sessions that arraylstm-train holds out."""
    return split(read_sessions(event_log, DataOptions())[0], SPLIT, seed=0)[2][:REPLAYED]


@pytest.mark.parametrize("cell", CELLS)
def test_every_answer_of_the_server_is_pytorchs(cell, train, export, serve, sessions):
    """Every cell, with its diagnostics in the graphs where it has any."""
    model = train(cell)
    check_server(serve(export(*["--diagnostics"][: len(model.diagnostic_names)])), model, sessions)


def test_a_language_model_of_peephole_layers_is_served_with_its_own_vocabulary(
    event_log, export, serve, sessions, tmp_path
):
    """LSTM2002, saved and exported like any model, answers as PyTorch does."""
    vocabulary = Vocabulary(["[bos]", "[eos]", "[pad]", "[unk]", *Vocabulary.from_sessions(sessions).labels], "[unk]")
    model = arraylstm.LSTM2002(tknzr=vocabulary, d_blk=2, d_emb=8, n_blk=6, n_lyr=2, p_hid=0.1)
    model.params_init()
    encoded = [vocabulary.encode(session) for session in sessions]
    fit(model, encoded, encoded[:10], TrainingOptions(epochs=1))
    arraylstm.save(model, tmp_path / "model.pt")
    check_server(serve(export()), model, sessions)


def test_a_network_around_torchs_lstm_is_served_from_its_state_dict(export, serve, sessions, tmp_path):
    """Weights that plain PyTorch saved, and labels in a file, are all that it takes; answers are the network's."""
    labels = Vocabulary.from_sessions(sessions).labels
    network = torch.nn.ModuleDict(
        {
            "item_embedding": torch.nn.Embedding(len(labels), 8),
            "rnn": torch.nn.LSTM(8, 12, num_layers=2, batch_first=True),
            "head": torch.nn.Linear(12, len(labels)),
        }
    )
    torch.save(network.state_dict(), tmp_path / "model.pt")
    (tmp_path / "labels.txt").write_text("\n".join(labels))
    bundle = export("--vocabulary", str(tmp_path / "labels.txt"))

    class Original:
        """The network, called as a model is."""

        vocabulary = Vocabulary(labels)
        num_items = len(labels)

        def unroll(self, items):
            return network["head"](network["rnn"](network["item_embedding"](items))[0]), None

    check_server(serve(bundle), Original(), sessions)


def check_server(server, model, sessions):
    """Sessions, interleaved at random and batched, get eager PyTorch's predictions, probabilities and ranks.

    And those that the session's whole history gets alone, on the CPU to the bit.
    """
    expected = [eager_probabilities(model, session) for session in sessions]
    answers, histories = asyncio.run(replay(server.url, sessions, model.num_items))
    for session, row, given, history in zip(sessions, expected, answers, histories, strict=True):
        for step, (item, answer) in enumerate(zip(session, given, strict=True)):
            assert (answer["step"], answer["state"]) == (step + 1, "continued" if step else "new")
            check_predictions(answer["predictions"], model, row[step])
            check_observed(answer["observed"], item, model, row[step - 1] if step else None)
        if Chosen.device == "cpu":
            assert history["predictions"] == given[-1]["predictions"]
            assert history["observed"] == [answer["observed"][0] for answer in given]
        else:
            check_predictions(history["predictions"], model, row[-1])
            for step, (item, seen) in enumerate(zip(session, history["observed"], strict=True)):
                check_observed([seen], item, model, row[step - 1] if step else None)


async def replay(url, sessions, top_k):
    """Send every session event by event, sixteen sessions at once so that they share batches, and then all at once.

    Returns the answers of every session's events, and the answer to its whole history without a session.
    """
    gate = asyncio.Semaphore(16)
    pauses = random.Random(1)
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as client:

        async def post(path, **body):
            answer = await client.post(path, json={"top_k": top_k, **body})
            return answer.raise_for_status().json()

        async def play(number, session):
            async with gate:
                given = []
                for step, item in enumerate(session):
                    await asyncio.sleep(pauses.choice((0, 0, 0.001)))
                    given.append(await post(f"/v1/sessions/s{number}/events", items=[item], expected_step=step))
                return given

        answers = await asyncio.gather(*(play(number, session) for number, session in enumerate(sessions)))
        return answers, [await post("/v1/predict", items=session) for session in sessions]


def eager_probabilities(model, session):
    """The probabilities (S, V) that PyTorch gives after every item of the whole session at once."""
    with torch.no_grad():
        logits, _ = model.unroll(torch.tensor([model.vocabulary.encode(session)]))
    return logits[0].softmax(-1)


def check_predictions(predictions, model, row):
    """All items but the unknown one are there, likeliest first, each with PyTorch's probability."""
    given = row.clone()
    known = [item for item in range(len(row)) if item != model.vocabulary.unknown_id]
    given[known] = 0.0
    given[model.vocabulary.encode(entry["item"] for entry in predictions)] = torch.tensor(
        [entry["probability"] for entry in predictions]
    )
    torch.testing.assert_close(given, row, rtol=0, atol=CLOSE)
    probabilities = [entry["probability"] for entry in predictions]
    assert len(probabilities) == len(known)
    assert probabilities == sorted(probabilities, reverse=True)


def check_observed(observed, item, model, row):
    """The item's probability and rank before it was seen are PyTorch's; a first item has none."""
    (entry,) = observed
    assert entry["item"] == item
    if row is None:
        assert (entry["probability"], entry["rank"]) == (None, None)
        return
    probability = row[model.vocabulary.id(item)]
    known = row[[other for other in range(len(row)) if other != model.vocabulary.unknown_id]]
    assert entry["probability"] == pytest.approx(probability.item(), abs=CLOSE)
    surely_above = int((known > probability + CLOSE).sum())
    perhaps_above = int((known >= probability - CLOSE).sum())
    assert 1 + surely_above <= entry["rank"] <= perhaps_above


@pytest.mark.skipif(not HDFS.is_file(), reason="the HDFS sessions (../shared) are not here")
def test_a_few_minutes_of_training_predict_hdfs_better_than_nine_in_ten(run_program):
    """Held-out top-1 accuracy with the program's defaults is at least 0.90, about what a 10-gram reaches."""
    done = run_program("arraylstm-train", HDFS, "-o", "model.pt")
    assert done.returncode == 0, done.stderr
    top1 = float(re.search(r"top-1.*\n.*\n\s*\d+\s+(0\.\d+)", done.stdout)[1])
    assert top1 >= 0.90
