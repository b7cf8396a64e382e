"""Ray Serve: dynamic batching, one replica, state in its dict.

python ray_serve.py STEP_GRAPH PORT
"""

import sys
from typing import Any

import ray
from ray import serve
from starlette.requests import Request
from stepping import Prediction, Sessions


@serve.deployment(num_replicas=1, max_ongoing_requests=256)
class Step:
    """One event per request."""

    def __init__(self, step_graph: str) -> None:
        self.sessions = Sessions(step_graph)

    @serve.batch(max_batch_size=64, batch_wait_timeout_s=0)
    async def advance(self, events: list[dict[str, Any]]) -> list[list[Prediction]]:
        return self.sessions.step([event["session_id"] for event in events], [event["items"][0] for event in events])

    async def __call__(self, request: Request) -> dict[str, Any]:
        return {"predictions": await self.advance(await request.json())}


if __name__ == "__main__":
    _, step_graph, port = sys.argv
    ray.init(num_cpus=1, include_dashboard=False, object_store_memory=100_000_000)
    serve.start(http_options={"host": "127.0.0.1", "port": int(port)})
    serve.run(Step.bind(step_graph), blocking=True)
