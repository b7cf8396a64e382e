"""The floor: raw ASGI that reads a body and answers 300 bytes of JSON, without routes, checks or inference.

python benchmarks/apps/floor.py PORT
"""

import json
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from hosting import host

Message = MutableMapping[str, Any]

SIZE = 300
EMPTY = len(json.dumps({"padding": ""}))
BODY = json.dumps({"padding": "x" * (SIZE - EMPTY)}).encode()
HEADERS = [(b"content-type", b"application/json"), (b"content-length", str(len(BODY)).encode())]


async def app(scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Any]) -> None:
    """Give every request the same answer."""
    more = True
    while more:
        more = (await receive()).get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": BODY})


if __name__ == "__main__":
    host(app, int(sys.argv[1]))
