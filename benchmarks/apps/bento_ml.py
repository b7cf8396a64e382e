"""BentoML: adaptive batching, one worker process, state in its dict.

python bento_ml.py STEP_GRAPH PORT
"""

import os
import sys
from pathlib import Path
from typing import Any

import bentoml
from stepping import Sessions


@bentoml.service(workers=1, traffic={"timeout": 30})
class Step:
    """One event per request; a batchable method takes and returns lists."""

    def __init__(self) -> None:
        self.sessions = Sessions(os.environ["STEP_GRAPH"])

    @bentoml.api(batchable=True, max_batch_size=64, max_latency_ms=1000)
    def advance(self, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        answers = self.sessions.step(*zip(*((event["session_id"], event["items"][0]) for event in events), strict=True))
        return [{"predictions": predictions} for predictions in answers]


if __name__ == "__main__":
    _, step_graph, port = sys.argv
    os.environ |= {"STEP_GRAPH": step_graph, "BENTOML_DO_NOT_TRACK": "True"}
    os.chdir(Path(__file__).parent)
    program = Path(sys.executable).with_name("bentoml")
    os.execv(program, [program, "serve", "bento_ml:Step", "--host", "127.0.0.1", "--port", port])
