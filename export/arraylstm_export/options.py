"""What an export is asked for, stated once: the arguments of `export`, and the flags of the command line."""

import math
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Annotated

from cyclopts import Parameter

from arraylstm_export.errors import ExportError
from arraylstm_export.formats.registry import FORMATS
from arraylstm_export.graph.opset import checked_ir_version
from arraylstm_export.graph.precision import PRECISIONS
from arraylstm_export.parity.scenarios import Coverage

_USUAL = ("onnx", "torchscript")
_FLAGS_OF_COVERAGE = re.compile("^(coverage|horizon)$")  # its other fields are for callers from Python


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a model is exported.

    Raises:
        ExportError: a choice is not offered, or two choices cannot be combined.
    """

    format: Annotated[
        tuple[str, ...] | None,
        Parameter(
            help=f"Format to write: {', '.join(FORMATS)}; repeat the flag for several. "
            f"[default: {' and '.join(_USUAL)}, as far as they have the precision]"
        ),
    ] = None
    precision: Annotated[
        str,
        Parameter(
            help=f"Precision that graphs compute in: {', '.join(PRECISIONS)}. State and scores are always float32."
        ),
    ] = "fp32"
    opset: int = 18
    """Version of ONNX's operators; older runtimes need a lower one."""
    ir_version: int | None = None
    """Version of ONNX's file format [default: the lowest that has the operators]."""
    tolerance: float | None = None
    """Largest difference from float64 PyTorch that passes, |a - b| / max(1, |b|) [default: 1e-5, more below fp32]."""
    strict: bool = False
    """Whether a difference fails even where float32 cannot decide between lanes that tie."""
    coverage: Annotated[Coverage, Parameter(name="*", parse=_FLAGS_OF_COVERAGE)] = field(default_factory=Coverage)
    """The sizes that are compared."""
    diagnostics: bool = False
    """Whether the graphs also output what a cell shows about its choices (markov: z and q_z)."""

    def __post_init__(self) -> None:
        """Refuse choices that are not offered or cannot be combined."""
        _require_known("format", self.formats, FORMATS)
        _require_known("precision", [self.precision], PRECISIONS)
        for name in self.formats:
            offered = FORMATS[name].precisions
            if self.precision not in offered:
                raise ExportError(f"format {name!r} can be written in {', '.join(offered)}, not in {self.precision!r}")
        if not self.formats:
            raise ExportError(f"no format; known formats: {', '.join(FORMATS)}")
        if self.tolerance is not None and not 0 < self.tolerance < math.inf:
            raise ExportError(f"tolerance must be a number above 0, got {self.tolerance!r}")
        checked_ir_version(self.opset, self.ir_version)

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats to write, each once."""
        if self.format is None:
            return tuple(name for name in _USUAL if self.precision in FORMATS[name].precisions)
        return tuple(dict.fromkeys(self.format))

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
