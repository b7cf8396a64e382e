"""The server that most people write: FastAPI, pydantic models, a dict of arrays, inference in the handler.

    python benchmarks/apps/naive.py STEP_GRAPH PORT

It is written well: one thread that does not spin, no access log, uvloop and httptools.
"""

import sys

from fastapi import FastAPI
from hosting import host
from pydantic import BaseModel, Field
from stepping import Sessions

sessions = Sessions(sys.argv[1])
app = FastAPI()


class Events(BaseModel):
    """Items that a session has just seen."""

    items: list[int] = Field(min_length=1)


class Prediction(BaseModel):
    """An item that may come next."""

    item: int
    probability: float


class Answer(BaseModel):
    """What may come next."""

    session_id: str
    predictions: list[Prediction]


@app.post("/v1/sessions/{session_id}/events", response_model=Answer)
async def advance(session_id: str, events: Events) -> Answer:
    """Step a session by its items."""
    for item in events.items:
        (predictions,) = sessions.step([session_id], [item])
    return Answer(session_id=session_id, predictions=[Prediction(**prediction) for prediction in predictions])


@app.get("/healthz")
async def healthz() -> dict[str, str]:
    """Say that the server is alive."""
    return {"status": "ok"}


if __name__ == "__main__":
    host(app, int(sys.argv[2]))
