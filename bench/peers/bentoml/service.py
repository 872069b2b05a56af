"""The service that BentoML runs: its name is in the command of server.py."""

import os
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
