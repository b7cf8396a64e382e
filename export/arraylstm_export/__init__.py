"""Turn trained arraylstm models into ONNX and TorchScript graphs with explicit state, and prove them equal."""

from arraylstm_export.bundle import export as export
from arraylstm_export.bundle import fingerprint as fingerprint
from arraylstm_export.bundle import verify_bundle as verify_bundle
from arraylstm_export.errors import ExportError as ExportError
from arraylstm_export.options import Options as Options
from arraylstm_export.parity import Check as Check
from arraylstm_export.parity import Report as Report
from arraylstm_export.parity import verify as verify
from arraylstm_export.reference import Reference as Reference
from arraylstm_export.scenarios import Coverage as Coverage
