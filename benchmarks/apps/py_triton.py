"""nvidia-pytriton: Triton's dynamic batcher calls a Python function; state in its process's dict.

python py_triton.py STEP_GRAPH PORT
"""

import sys

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig
from stepping import TOP_K, Array, Sessions

_, STEP_GRAPH, PORT = sys.argv


def main() -> None:
    """Serve until told to stop."""
    sessions = Sessions(STEP_GRAPH)

    @batch
    def step(session_id: Array, item: Array) -> dict[str, Array]:
        answers = sessions.step([name.decode() for name in session_id.ravel()], item.ravel())
        return {
            "items": np.array([[prediction["item"] for prediction in answer] for answer in answers]),
            "probabilities": np.array([[p["probability"] for p in answer] for answer in answers], np.float32),
        }

    ports = {f"{name}_port": int(PORT) + offset for offset, name in enumerate(("http", "grpc", "metrics"))}
    addresses = dict.fromkeys(("http_address", "grpc_address", "metrics_address"), "127.0.0.1")
    with Triton(config=TritonConfig(**addresses, **ports)) as triton:
        triton.bind(
            model_name="step",
            infer_func=step,
            inputs=[
                Tensor(name="session_id", dtype=bytes, shape=(1,)),
                Tensor(name="item", dtype=np.int64, shape=(1,)),
            ],
            outputs=[
                Tensor(name="items", dtype=np.int64, shape=(TOP_K,)),
                Tensor(name="probabilities", dtype=np.float32, shape=(TOP_K,)),
            ],
            config=ModelConfig(max_batch_size=64, batcher=DynamicBatcher(max_queue_delay_microseconds=0)),
        )
        triton.serve()


if __name__ == "__main__":
    main()
