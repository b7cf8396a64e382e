"""Run an application on uvicorn with the options of arraylstm-serve, so that the two can be compared."""

import gc
from typing import Any

import uvicorn


def host(app: Any, port: int) -> None:
    """Serve an application until told to stop."""
    gc.collect()
    gc.freeze()
    uvicorn.run(
        app,
        port=port,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="warning",
        server_header=False,
    )
