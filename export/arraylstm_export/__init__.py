"""Turn trained arraylstm models into ONNX and TorchScript graphs with explicit state, and prove them equal.

Each part knows only those below it:

    cli           the program `arraylstm-export`
    evaluation    the program `arraylstm-evaluate`: what a bundle predicts, and anomalies
    terminal      the tables that it prints
    bundle        the folder that is written, proven equal to the model, and verified again later
    options       what an export is asked for
    parity        the comparison of every form of the model with the model in float64
    formats       the files a model is written in, and how each of them is run
    graph         the ONNX graphs
    interface, arrays, errors, runtime
"""

from arraylstm_export.bundle.model import fingerprint as fingerprint
from arraylstm_export.bundle.verify import verify_bundle as verify_bundle
from arraylstm_export.bundle.write import export as export
from arraylstm_export.errors import ExportError as ExportError
from arraylstm_export.evaluation.run import evaluate as evaluate
from arraylstm_export.options import Options as Options
from arraylstm_export.parity.checks import verify as verify
from arraylstm_export.parity.reference import Reference as Reference
from arraylstm_export.parity.report import Check as Check
from arraylstm_export.parity.report import Report as Report
from arraylstm_export.parity.scenarios import Coverage as Coverage
