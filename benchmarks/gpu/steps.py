"""One step of a model, in every way that it can be taken.

In every way, items come from the host, the sessions' states stay where they are (with onnxruntime without IOBinding, on
the host), and the most likely next items go to the host with their probabilities.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from bundles import Served
from gpu.device import Device
from gpu.sizes import Peer
from torch import Tensor

from arraylstm import NextItemModel
from arraylstm_serve.bundle.load import Bundle
from arraylstm_serve.engine.base import Engine
from arraylstm_serve.engine.gpu.engine import DeviceEngine
from arraylstm_serve.engine.open import open_engine
from arraylstm_serve.engine.slots import INITIAL
from arraylstm_serve.settings import Settings

TOP = 10
FIRST = INITIAL + 1
_CUDA = "CUDAExecutionProvider"

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
Step = Callable[[], Floats]
"""Steps every session by its item, and returns the probabilities (B, TOP) of the likeliest next ones, falling."""


@dataclass(frozen=True)
class Subject:
    """A model and its device.

    Attributes:
        model: the model in torch, on the device.
        served: its bundle.
        device: the device.
        most: the largest batch that will be stepped.
    """

    model: NextItemModel
    served: Served
    device: Device
    most: int

    @cached_property
    def engine(self) -> Engine:
        """The server's engine with the bundle, warmed up."""
        settings = Settings(device=self.device.device, tf32=self.device.tf32, max_batch=self.most)
        opened = open_engine(Bundle.load(self.served.bundle), settings, FIRST + 2 * self.most)
        opened.warm_up(self.most)
        return opened

    @cached_property
    def session(self) -> onnxruntime.InferenceSession:
        """The step graph in onnxruntime, opened as most people do it."""
        if not self.device.is_cuda:
            return onnxruntime.InferenceSession(self.served.step_graph, providers=["CPUExecutionProvider"])
        onnxruntime.preload_dlls()
        options = {"use_tf32": str(int(self.device.tf32))}
        session = onnxruntime.InferenceSession(self.served.step_graph, providers=[(_CUDA, options)])
        if session.get_providers()[0] != _CUDA:
            raise ValueError(f"onnxruntime took {session.get_providers()[0]} instead of CUDA")
        return session

    @cached_property
    def compiled(self) -> Callable[[Tensor, list[Tensor]], tuple[Tensor, list[Tensor]]]:
        """The model's step, compiled for any batch."""
        return self.device.compiled(self.model.step, dynamic=True)


def engine_step(subject: Subject, items: Integers) -> Step:
    """Return a step of the server's engine, from the initial state."""
    sources, targets, reaches = np.full(len(items), INITIAL), FIRST + np.arange(len(items)), [TOP] * len(items)

    def step() -> Floats:
        taken = subject.engine.step(sources, targets, items, reaches)
        sources[:] = targets
        return np.array([ranking.probabilities for ranking in taken.rankings], np.float32)

    return step


def arrays_step(subject: Subject, items: Integers) -> Step:
    """Return a step of the server's engine on a GPU that leaves what it found in arrays, as torch does."""
    engine = subject.engine
    assert isinstance(engine, DeviceEngine)
    sources, targets = np.full(len(items), INITIAL), FIRST + subject.most + np.arange(len(items))

    def step() -> Floats:
        found = engine.advance(sources, targets, items)
        sources[:] = targets
        return np.exp(found["tops"][:, :TOP])

    return step


def onnxruntime_step(subject: Subject, items: Integers) -> Step:
    """Return a run of the step graph that takes and returns arrays."""
    session = subject.session
    states = [tensor for tensor in session.get_inputs() if tensor.name != "items"]
    feeds = {state.name: np.zeros((len(items), *state.shape[1:]), np.float32) for state in states}
    names = ["logits", *(f"next_{name}" for name in feeds)]

    def step() -> Floats:
        logits, *following = session.run(names, feeds | {"items": items})
        feeds.update(zip(feeds, following, strict=True))
        weights = np.exp(logits - logits.max(1, keepdims=True))
        ids = np.argpartition(-weights, TOP - 1)[:, :TOP]
        return -np.sort(-np.take_along_axis(weights, ids, 1)) / weights.sum(1, keepdims=True)

    return step


def torch_step(subject: Subject, items: Integers, *, compiled: bool = False) -> Step:
    """Return a step of the model in torch, eager or compiled."""
    run, host = (subject.compiled if compiled else subject.model.step), torch.from_numpy(items)
    state = subject.model.initial_state(len(items))

    @torch.no_grad()
    def step() -> Floats:
        logits, state[:] = run(host.to(subject.device.device), state)
        return _on_host(*_likeliest(logits))

    return step


def graphed_step(subject: Subject, items: Integers) -> Step:
    """Return a replay of the CUDA graph of a step that writes its state in place."""
    host = torch.from_numpy(items).pin_memory()
    fed, state = host.to(subject.device.device), subject.model.initial_state(len(items))

    @torch.no_grad()
    def advance() -> tuple[Tensor, Tensor]:
        logits, following = subject.model.step(fed, state)
        for kept, new in zip(state, following, strict=True):
            kept.copy_(new)
        return _likeliest(logits)

    replay = subject.device.captured(advance)
    for kept in state:
        kept.zero_()

    def step() -> Floats:
        fed.copy_(host, non_blocking=True)
        return _on_host(*replay())

    return step


def _likeliest(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return the probabilities and the ids of the most likely items."""
    top = logits.softmax(1).topk(TOP)
    return top.values, top.indices


def _on_host(probabilities: Tensor, ids: Tensor) -> Floats:
    """Fetch both to the host, and return the probabilities, by which steps are compared."""
    ids.cpu()
    return probabilities.cpu().numpy()


PEERS: dict[Peer, Callable[[Subject, Integers], Step]] = {
    "torch eager": torch_step,
    "torch.compile": lambda subject, items: torch_step(subject, items, compiled=True),
    "torch CUDA graph": graphed_step,
    "onnxruntime": onnxruntime_step,
    "engine, arrays": arrays_step,
}
NEEDS_CUDA = {"torch CUDA graph", "engine, arrays"}
