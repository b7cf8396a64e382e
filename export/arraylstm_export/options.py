"""What an export is asked for, stated once: these are the arguments of `export`, and the flags of the command line."""

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from arraylstm_export.errors import ExportError
from arraylstm_export.formats import FORMATS
from arraylstm_export.opset import checked_ir_version
from arraylstm_export.precision import PRECISIONS


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a model is exported.

    Raises:
        ExportError: a choice that is not offered, or that does not go with another one.
    """

    format: tuple[str, ...] = ("onnx", "torchscript")
    """What to write."""
    precision: str = "fp32"
    """Numbers that the ONNX graphs compute with; state and scores are float32 in any case."""
    opset: int = 18
    """Version of ONNX's operators; the lower, the older the runtimes that read it."""
    ir_version: int | None = None
    """Version of ONNX's file format; None is the lowest that has the operators."""
    tolerance: float | None = None
    """Largest difference from float64 PyTorch that passes: |a - b| / max(1, |b|); None is 1e-5 in fp32."""
    strict: bool = False
    """Whether a difference fails even where float32 cannot decide between lanes that tie."""
    horizon: int = 10_000
    """Steps of the longest run that is compared."""
    traces: bool = False
    """Whether the graphs also give what the cells show of themselves (markov: z and q_z)."""

    def __post_init__(self) -> None:
        """Refuse what is not offered, and what does not go together."""
        _require_known("format", self.format, FORMATS)
        _require_known("precision", [self.precision], PRECISIONS)
        for name in self.format:
            offered = FORMATS[name].precisions
            if self.precision not in offered:
                raise ExportError(f"format {name!r} is written in {', '.join(offered)}, not in {self.precision!r}")
        if not self.format:
            raise ExportError(f"no format; known formats: {', '.join(FORMATS)}")
        if self.tolerance is not None and not 0 < self.tolerance < math.inf:
            raise ExportError(f"tolerance must be a number above 0, got {self.tolerance!r}")
        if self.horizon < 1:
            raise ExportError(f"horizon must be at least 1, got {self.horizon!r}")
        checked_ir_version(self.opset, self.ir_version)

    @property
    def allowed(self) -> float:
        """The largest difference that passes."""
        return PRECISIONS[self.precision].tolerance if self.tolerance is None else self.tolerance

    @property
    def file_version(self) -> int:
        """The version of ONNX's file format."""
        return checked_ir_version(self.opset, self.ir_version)


def _require_known(what: str, names: Iterable[str], known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            raise ExportError(f"unknown {what} {name!r}; known: {', '.join(known)}")
