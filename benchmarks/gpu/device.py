"""The device that is measured: its clock, its name, and how calls become CUDA graphs on it."""

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from timing import Call, Stopwatch, cpu_seconds

NOT_RUN = "not run: needs CUDA"

_WARM_UPS = 3  # runs before a capture, as in torch's documentation
_Result = TypeVar("_Result")


@dataclass(frozen=True, kw_only=True)
class Device:
    """The device that everything runs on, and its precision."""

    device: Literal["cuda", "cpu"] = "cuda"
    """Device to run on; on the CPU, the parts that need CUDA are left out."""
    tf32: bool = False
    """Let products of float32 be rounded to TF32, in torch and in the server."""
    backend: str = "inductor"
    """Backend of torch.compile; aot_eager, which compiles nothing, is for trying the script."""

    def require(self) -> None:
        """Raise ValueError unless torch has it."""
        if self.is_cuda and not torch.cuda.is_available():
            raise ValueError(f"--device cuda: torch {torch.__version__} finds no CUDA device; try --device cpu")

    @property
    def is_cuda(self) -> bool:
        """Whether it is a GPU."""
        return self.device == "cuda"

    @property
    def stopwatch(self) -> Stopwatch:
        """The function that times calls."""
        return event_seconds if self.is_cuda else cpu_seconds

    def captured(self, call: Callable[[], _Result]) -> Callable[[], _Result]:
        """Return a replay of the CUDA graph of a call; every replay returns the same tensors with new contents.

        The replay keeps the call, and so the tensors that it reads and writes: the graph knows only their addresses.
        """
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UPS):
                call()
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = call()

        def replay(_kept: object = call) -> _Result:
            graph.replay()
            return result

        return replay

    def compiled(self, call: Callable[..., _Result], **options: Any) -> Callable[..., _Result]:
        """Return a call compiled whole: a break in the graph is an error."""
        return torch.compile(call, backend=self.backend, fullgraph=True, **options)

    def described(self) -> dict[str, str]:
        """Return its name and versions."""
        if not self.is_cuda:
            return {"device": "CPU"}
        return {
            "device": torch.cuda.get_device_name(),
            "driver": _driver(),
            "torch's CUDA": str(torch.version.cuda),
            "torch's cuDNN": str(torch.backends.cudnn.version()),
        }


def multiply(*, tf32: bool) -> None:
    """Let torch and cuDNN multiply in float32, or rounded to TF32."""
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32


def event_seconds(call: Call, repeat: int) -> float:
    """Return the seconds per call on the GPU, launch included, from CUDA events around this many calls."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(repeat):
        call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3 / repeat


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
