"""The step graph, and a dict of every session's state: what the servers compared with ours share."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

Array = npt.NDArray[Any]
Prediction = dict[str, Any]
TOP_K = 10


def open_graph(path: str) -> onnxruntime.InferenceSession:
    """Load a graph for one thread that does not spin, which is fastest on one core."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def zero_states(graph: onnxruntime.InferenceSession, rows: int) -> dict[str, Array]:
    """Return the states of sessions that have not begun, an array (rows, *shape) for each of the graph's inputs."""
    return {
        tensor.name: np.zeros((rows, *tensor.shape[1:]), np.float32)
        for tensor in graph.get_inputs()
        if tensor.name != "items"
    }


class Sessions:
    """Steps sessions by one item each, and keeps their states.

    Args:
        path: the step graph.
    """

    def __init__(self, path: str) -> None:
        self._graph = open_graph(path)
        self._fresh = {name: state[0] for name, state in zero_states(self._graph, 1).items()}
        self._states: dict[str, dict[str, Array]] = {}

    def step(self, session_ids: Sequence[str], items: Sequence[int]) -> list[list[Prediction]]:
        """Step different sessions together, and return the most likely next items of each."""
        before = [self._states.get(session_id, self._fresh) for session_id in session_ids]
        feeds = {name: np.stack([states[name] for states in before]) for name in self._fresh}
        outputs = [f"next_{name}" for name in feeds]
        logits, *after = self._graph.run(["logits", *outputs], feeds | {"items": np.asarray(items, np.int64)})
        for row, session_id in enumerate(session_ids):
            self._states[session_id] = {name: rows[row] for name, rows in zip(feeds, after, strict=True)}
        return [_predictions(row) for row in logits]


def _predictions(logits: Array) -> list[Prediction]:
    weights = np.exp(logits - logits.max())
    probabilities = weights / weights.sum()
    best = np.argpartition(-probabilities, TOP_K)[:TOP_K]
    best = best[np.argsort(-probabilities[best])]
    return [{"item": int(item), "probability": float(probabilities[item])} for item in best]
