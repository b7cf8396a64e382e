"""Time bulk requests to a server in its own process, and compare them with its engine's steps and with the card."""

from collections.abc import Iterator
from pathlib import Path
from statistics import median

import numpy as np
from events import bulk_events
from gpu.ceilings import Ceilings, step_work
from gpu.device import Device
from gpu.engine import subject
from gpu.sizes import BulkSizes, StepSizes
from gpu.steps import engine_step
from load import keep_busy
from report import Row, Table
from servers import Server, ours
from timing import measure

_STARTING = 300.0  # seconds allowed for making CUDA graphs of every batch size


def tables(device: Device, ceilings: Ceilings, steps: StepSizes, sizes: BulkSizes, rounds: int) -> Iterator[Table]:
    """Measure bulk requests of every size."""
    most = sizes.bulk_batch
    with subject(device, steps, sizes.bulk_hidden, sizes.bulk_lanes, most) as stepped:
        items = np.random.default_rng(0).integers(0, steps.num_items, most)
        step = measure({"engine": engine_step(stepped, items)}, rounds, device.stopwatch)["engine"]
        work = step_work(most, sizes.bulk_hidden, sizes.bulk_lanes, steps.num_items, steps.embedding_size)
        floor = most / ceilings.floor(work)
        rows = []
        with server(device, stepped.served.bundle, sizes) as started:
            for size in sizes.bulk:
                requests = bulk_events(stepped.served, size)
                loads = [keep_busy(started, requests, sizes.connections, sizes.seconds) for _ in range(rounds + 1)][1:]
                rate, p50 = (median(getattr(load, field) for load in loads) for field in ("rate", "p50"))
                ratios = {"floor /": floor / (rate * size), "engine /": most / step / (rate * size)}
                figures = {"events/s": rate * size, "p50 ms": p50 * 1e3, "client busy": loads[-1].client}
                rows.append(Row(f"{size} events a request, {sizes.connections} connections", ratios, figures))
    rows.append(Row(f"engine, B={most}", {"floor /": floor * step / most}, {"events/s": most / step}))
    yield Table(f"Bulk requests over HTTP, H={sizes.bulk_hidden} k={sizes.bulk_lanes} V={steps.num_items}", rows)


def server(device: Device, bundle: Path, sizes: BulkSizes) -> Server:
    """Return arraylstm-serve on the device, with room for all sessions of the largest requests."""
    most = max(sizes.bulk)
    options = {"device": device.device, "max-batch": sizes.bulk_batch, "max-events": most, "max-sessions": 32 * most}
    flags = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    tf32 = ["--tf32"] if device.tf32 else []
    return ours(bundle, sizes.server_cores, *flags, *tf32, patience=_STARTING)
