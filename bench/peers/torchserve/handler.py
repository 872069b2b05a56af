"""The handler that goes into the model archive: it runs in TorchServe's worker processes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort


class Digits:
    """The model, in the form of a custom handler."""

    def initialize(self, context: Any) -> None:
        """Load the model out of the archive."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        model = Path(context.system_properties["model_dir"]) / context.manifest["model"]["serializedFile"]
        self.session = ort.InferenceSession(model, options, ["CPUExecutionProvider"])

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[str]:
        """Run a batch of requests."""
        pixels = np.stack([self.decode(row["body"]) for row in data])
        (logits,) = self.session.run(["logits"], {"pixels": pixels})
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities = odds / odds.sum(axis=1, keepdims=True)
        return [json.dumps({"probabilities": row}) for row in probabilities.tolist()]

    def decode(self, body: dict[str, Any] | bytearray) -> np.ndarray:
        """Read one image."""
        if isinstance(body, dict):  # TorchServe has parsed it, by its content type
            return np.array(body["pixels"], np.uint8)
        return np.frombuffer(body, np.uint8).reshape(28, 28)
