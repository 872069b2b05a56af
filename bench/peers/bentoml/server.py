"""BentoML: uvicorn processes under a supervisor, each with its own model and its own queue.

Its adaptive batching is on, with at most 8. The access log and the metrics, on by default, are off; uvloop
and httptools are installed, which its uvicorn then uses. BentoML offers JSON and files, but no raw bodies.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import bentoml
import numpy as np
import onnxruntime as ort
from bentoml.validators import DType, Shape


@bentoml.service(
    workers=int(os.environ.get("PROCESSES", "1")),
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
)
class Digits:
    """The model, loaded once in every worker."""

    def __init__(self) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = ort.InferenceSession(os.environ["MODEL"], options, ["CPUExecutionProvider"])

    @bentoml.api(batchable=True, max_batch_size=8)
    def predict(
        self, pixels: Annotated[np.ndarray, DType("uint8"), Shape((-1, 28, 28))]
    ) -> Annotated[np.ndarray, DType("float32"), Shape((-1, 10))]:
        """Return the probabilities of a batch, which BentoML put together of several requests."""
        (logits,) = self.session.run(["logits"], {"pixels": pixels})
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        return odds / odds.sum(axis=1, keepdims=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", required=True)
    parser.add_argument("--processes", required=True)
    arguments = parser.parse_args()
    serve = [sys.executable, "-m", "bentoml", "serve", "server:Digits", "--host=127.0.0.1"]
    with tempfile.TemporaryDirectory(prefix="bentoml-") as home:
        process = subprocess.Popen(  # noqa: S603
            [*serve, f"--port={arguments.port}", f"--working-dir={Path(__file__).parent}"],
            cwd=home,
            env={
                **os.environ,
                "MODEL": arguments.model,
                "PROCESSES": arguments.processes,
                "BENTOML_HOME": home,
                "BENTOML_DO_NOT_TRACK": "true",
            },
        )
        # It goes to the whole group: BentoML leaves, and this process waits for that to remove the folder.
        signal.signal(signal.SIGTERM, lambda *_: None)
        process.wait()
