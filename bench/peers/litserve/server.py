"""LitServe: uvicorn processes with FastAPI in front, inference processes behind a queue.

Its batching is on: at most 8, and 2 ms of waiting; with none, its inference processes poll their queue
without a pause and take the processor from its HTTP processes. `fast_queue` is on, as its documentation
advises above 100 requests a second, and there are as many HTTP processes as inference processes, as it
advises too. LitServe offers JSON and multipart forms, but no raw bodies.
"""

import argparse
import signal
import sys
from typing import Any

import litserve as ls
import numpy as np
import onnxruntime as ort


class Digits(ls.LitAPI):
    """The model; all but `__init__` runs in the inference processes."""

    def __init__(self, model: str) -> None:
        super().__init__(max_batch_size=8, batch_timeout=0.002)
        self.model = model

    def setup(self, device: str) -> None:
        """Load the model."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = ort.InferenceSession(self.model, options, ["CPUExecutionProvider"])

    def decode_request(self, request: dict[str, Any]) -> np.ndarray:
        """Read one image."""
        return np.array(request["pixels"], np.uint8)

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Return the probabilities of a batch, (batch, 28, 28), which LitServe stacked."""
        (logits,) = self.session.run(["logits"], {"pixels": x})
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        return odds / odds.sum(axis=1, keepdims=True)

    def encode_response(self, output: np.ndarray) -> dict[str, Any]:
        """Write the probabilities of one image."""
        return {"probabilities": output.tolist()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--processes", type=int, required=True)
    arguments = parser.parse_args()
    server = ls.LitServer(
        Digits(arguments.model), accelerator="cpu", workers_per_device=arguments.processes, fast_queue=True
    )
    # LitServe clears up when its `run` is left, but SIGTERM alone would not let it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    server.run(
        host="127.0.0.1",
        port=arguments.port,
        num_api_servers=arguments.processes,
        log_level="warning",
        generate_client_file=False,
        access_log=False,
    )
