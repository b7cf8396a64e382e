"""MLServer: adaptive batching, no parallel workers, state in the process's dict.

python ml_server.py STEP_GRAPH PORT
"""

import os
import sys
from pathlib import Path

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse
from stepping import Sessions


class Step(MLModel):
    """One event per request, as tensors of one row, batched along the row axis."""

    async def load(self) -> bool:
        self.sessions = Sessions(os.environ["STEP_GRAPH"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        session_ids, items = payload.inputs
        answers = self.sessions.step(StringCodec.decode_input(session_ids), NumpyCodec.decode_input(items).ravel())
        columns = {
            name: np.array([[prediction[name] for prediction in answer] for answer in answers])
            for name in ("item", "probability")
        }
        outputs = [NumpyCodec.encode_output(name, column) for name, column in columns.items()]
        return InferenceResponse(model_name=self.name, outputs=outputs)


if __name__ == "__main__":
    _, step_graph, port = sys.argv
    settings = {
        "HTTP_PORT": port,
        "GRPC_PORT": str(int(port) + 1),
        "METRICS_PORT": str(int(port) + 2),
        "HOST": "127.0.0.1",
        "PARALLEL_WORKERS": "0",
        "DEBUG": "false",
        "MODEL_NAME": "step",
        "MODEL_IMPLEMENTATION": "ml_server.Step",
        "MODEL_MAX_BATCH_SIZE": "64",
        "MODEL_MAX_BATCH_TIME": "0.001",
    }
    os.environ |= {f"MLSERVER_{name}": value for name, value in settings.items()}
    os.environ |= {"STEP_GRAPH": step_graph, "PYTHONPATH": str(Path(__file__).parent)}
    program = Path(sys.executable).with_name("mlserver")
    os.execv(program, [program, "start", "."])
