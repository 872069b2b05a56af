"""Mosec: a front of Rust that batches, and worker processes of Python behind Unix sockets.

Its dynamic batching is on: at most 8, and 1 ms of waiting, the least it takes. JSON goes through msgspec,
which mosec's own typed mixin uses too. One worker serves both kinds of body, told apart by their length, so
that no process idles.
"""

import argparse
import os
from typing import Any

import msgspec
import numpy as np
import onnxruntime as ort
from mosec import Server, ValidationError, Worker

RAW_BYTES = 28 * 28


class Image(msgspec.Struct):
    """The request's body."""

    pixels: list[list[int]]


class Digits(Worker):
    """The model."""

    def __init__(self) -> None:
        super().__init__()
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = ort.InferenceSession(os.environ["MODEL"], options, ["CPUExecutionProvider"])
        self.decoder = msgspec.json.Decoder(Image)
        self.encoder = msgspec.json.Encoder()

    def deserialize(self, data: bytes) -> np.ndarray:
        """Read one image."""
        if len(data) == RAW_BYTES:  # JSON takes two bytes a pixel at least
            return np.frombuffer(data, np.uint8).reshape(28, 28)
        try:
            return np.array(self.decoder.decode(data).pixels, np.uint8)
        except msgspec.DecodeError as error:
            raise ValidationError(error) from error

    def forward(self, data: Any) -> Any:
        """Return the probabilities of a batch of images."""
        (logits,) = self.session.run(["logits"], {"pixels": np.stack(data)})
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        return (odds / odds.sum(axis=1, keepdims=True)).tolist()

    def serialize(self, data: list[float]) -> bytes:
        """Write the probabilities of one image."""
        return self.encoder.encode({"probabilities": data})


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", required=True)
    parser.add_argument("--processes", type=int, required=True)
    arguments = parser.parse_args()
    os.environ |= {
        "MODEL": arguments.model,
        "MOSEC_ADDRESS": "127.0.0.1",
        "MOSEC_PORT": arguments.port,
        "MOSEC_LOG_LEVEL": "warning",
        "MOSEC_TIMEOUT": "5000",  # ms; it accepts requests before its workers are there, which wait for them
    }
    server = Server()
    server.append_worker(Digits, num=arguments.processes, max_batch_size=8, max_wait_time=1)
    server.run()
