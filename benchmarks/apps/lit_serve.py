"""LitServe: it batches the requests that have arrived; one worker process, state in its dict.

python lit_serve.py STEP_GRAPH PORT
"""

import sys
from collections.abc import Sequence
from typing import Any

from litserve import LitAPI, LitServer
from stepping import Prediction, Sessions

_, STEP_GRAPH, PORT = sys.argv


class Step(LitAPI):
    """One event per request."""

    def setup(self, device: str) -> None:
        self.sessions = Sessions(STEP_GRAPH)

    def decode_request(self, request: dict[str, Any]) -> tuple[str, int]:
        return request["session_id"], request["items"][0]

    def batch(self, inputs: Sequence[tuple[str, int]]) -> Sequence[tuple[str, int]]:
        return inputs

    def predict(self, events: Sequence[tuple[str, int]]) -> list[list[Prediction]]:
        return self.sessions.step(*zip(*events, strict=True))

    def unbatch(self, output: list[list[Prediction]]) -> list[list[Prediction]]:
        return output

    def encode_response(self, output: list[Prediction]) -> dict[str, Any]:
        return {"predictions": output}


if __name__ == "__main__":
    server = LitServer(Step(max_batch_size=64, batch_timeout=0.001), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(PORT), num_api_servers=1, generate_client_file=False, log_level="warning")
