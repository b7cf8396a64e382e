"""What writing and verifying a bundle both return."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from arraylstm_export.bundle.manifest import Manifest
from arraylstm_export.formats.runner import Runner
from arraylstm_export.parity.report import Report

OnStage = Callable[[str, int, int], None]
"""Called with a stage's name, how much of it is done, and its total."""


@dataclass(frozen=True)
class CheckedBundle:
    """A bundle whose forms were loaded and compared."""

    manifest: Manifest
    forms: Mapping[str, Runner]
    report: Report
