"""Open an engine on the device that the settings name."""

from __future__ import annotations

import logging

from arraylstm_serve.bundle.load import Bundle
from arraylstm_serve.engine.base import Engine
from arraylstm_serve.engine.host import HostEngine
from arraylstm_serve.engine.runtime import onnxruntime as ort
from arraylstm_serve.engine.step_graph import CUDA, StepGraph, open_graph
from arraylstm_serve.errors import StartupError
from arraylstm_serve.settings import Settings

logger = logging.getLogger(__name__)


def open_engine(bundle: Bundle, settings: Settings, slots: int) -> Engine:
    """Open the bundle's step graph on the device that the settings name, with memory for `slots` rows.

    Raises:
        StartupError: the graph cannot be loaded, or the device cannot be used.
        MemoryError: the host's memory cannot hold that many rows.
    """
    return open_accelerator(bundle, settings, slots) or open_host(bundle, open_host_graph(bundle, settings), slots)


def open_host_graph(bundle: Bundle, settings: Settings) -> StepGraph:
    """Open the bundle's step graph on the CPU, without memory for rows.

    Raises:
        StartupError: the settings have an option that needs a GPU, or the graph cannot be loaded.
    """
    if settings.tf32 or settings.gpu_memory is not None:
        raise StartupError("--tf32 and --gpu-memory are for a GPU, but the model runs on the CPU; leave them out.")
    return open_graph(bundle, settings.threads)


def open_host(bundle: Bundle, graph: StepGraph, slots: int) -> HostEngine:
    """Make the engine on the CPU, with memory for `slots` rows.

    Raises:
        MemoryError: the host's memory cannot hold that many rows.
    """
    return HostEngine(graph, slots, bundle.manifest.states, len(bundle.vocabulary), bundle.vocabulary.unknown)


def runs_on_host(settings: Settings) -> bool:
    """Whether the settings and onnxruntime leave only the CPU."""
    return settings.device == "cpu" or (settings.device == "auto" and CUDA not in ort.get_available_providers())


def open_accelerator(bundle: Bundle, settings: Settings, slots: int) -> Engine | None:
    """Open the bundle's step graph on the GPU. Return None if the model is to run on the CPU.

    Raises:
        StartupError: the settings name the GPU and it cannot be used.
    """
    if runs_on_host(settings):
        return None
    from arraylstm_serve.engine.gpu.engine import open_cuda  # needs packages that only the extra serve-gpu installs

    open_graph(bundle, settings.threads)  # checks the graph against the manifest; the GPU runs a changed copy
    try:
        return open_cuda(bundle, settings, slots)
    except StartupError as error:
        if settings.device == "cuda":
            raise
        logger.warning("--device auto takes the CPU: %s", error)
        return None
