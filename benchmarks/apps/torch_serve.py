"""TorchServe: it batches requests for a handler in one worker process; state in that process's dict.

python torch_serve.py STEP_GRAPH PORT
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

STORE = Path("store")
MODEL = {"minWorkers": 1, "maxWorkers": 1, "batchSize": 64, "maxBatchDelay": 1}


class Step:
    """One event per request."""

    def initialize(self, context: Any) -> None:
        from stepping import Sessions

        self.sessions = Sessions(os.environ["STEP_GRAPH"])

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[dict[str, Any]]:
        events = [request["body"] for request in data]
        answers = self.sessions.step([event["session_id"] for event in events], [event["items"][0] for event in events])
        return [{"predictions": predictions} for predictions in answers]


def main(step_graph: str, port: str) -> None:
    """Write a model folder, laid out like an unpacked archive, and start TorchServe on it."""
    here, folder = Path(__file__), STORE / "step"
    (folder / "MAR-INF").mkdir(parents=True)
    for source in (here, here.with_name("stepping.py")):
        (folder / source.name).write_bytes(source.read_bytes())
    (folder / "model-config.yaml").write_text("".join(f"{name}: {value}\n" for name, value in MODEL.items()))
    model = {
        "modelName": "step",
        "handler": here.name,
        "modelVersion": "1",
        "configFile": "model-config.yaml",
    }
    manifest = {"runtime": "python", "model": model, "archiverVersion": "0.12.0"}
    (folder / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))
    addresses = {"inference": int(port), "management": int(port) + 1, "metrics": int(port) + 2}
    lines = [f"{name}_address=http://127.0.0.1:{number}" for name, number in addresses.items()]
    lines += [f"grpc_inference_port={int(port) + 3}", f"grpc_management_port={int(port) + 4}"]
    lines += ["enable_envvars_config=false", "default_response_timeout=10"]
    Path("config.properties").write_text("\n".join(lines))
    os.environ |= {"STEP_GRAPH": step_graph, "LOG_LOCATION": "logs", "METRICS_LOCATION": "logs"}
    program = Path(sys.executable).with_name("torchserve")
    options = ["--foreground", "--ncs", "--disable-token-auth", "--ts-config", "config.properties"]
    os.execv(program, [program, "--start", "--model-store", str(STORE), "--models", "step=step", *options])


if __name__ == "__main__":
    main(*sys.argv[1:])
