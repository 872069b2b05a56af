"""What Triton's Python backend runs, in a process for each instance of the model."""

import os
from typing import Any

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as triton


class TritonPythonModel:
    """The model; Triton wants this name."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the model."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = ort.InferenceSession(os.environ["MODEL"], options, ["CPUExecutionProvider"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer a batch of requests, which Triton leaves apart: put them together for the run."""
        rows = [triton.get_input_tensor_by_name(request, "pixels").as_numpy() for request in requests]
        (logits,) = self.session.run(["logits"], {"pixels": np.concatenate(rows)})
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities = odds / odds.sum(axis=1, keepdims=True)
        ends = np.cumsum([len(row) for row in rows])[:-1]
        return [
            triton.InferenceResponse([triton.Tensor("probabilities", part)])
            for part in np.split(probabilities, ends)
        ]
