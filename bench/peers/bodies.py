"""The bodies that rivals read and answer: plain JSON, raw pixels, and the Open Inference Protocol."""

from __future__ import annotations

import json

import numpy as np
from numpy.typing import NDArray

_PROBABILITIES = 10


def json_pixels(pixels: NDArray[np.uint8]) -> bytes:
    """Return `{"pixels": [[…], …]}`, the body that people write."""
    return _dumps({"pixels": pixels.tolist()})


def raw_pixels(pixels: NDArray[np.uint8]) -> bytes:
    """Return the pixels row by row, a byte each."""
    return pixels.tobytes()


def inference_json(pixels: NDArray[np.uint8]) -> bytes:
    """Return an inference request of the Open Inference Protocol, its numbers in one flat list."""
    tensor = {
        "name": "pixels",
        "shape": [1, *pixels.shape],
        "datatype": "UINT8",
        "data": pixels.ravel().tolist(),
    }
    return _dumps({"inputs": [tensor]})


def json_label(body: bytes) -> int:
    """Read the label from `{"probabilities": […]}`."""
    return _label(json.loads(body)["probabilities"])


def bare_json_label(body: bytes) -> int:
    """Read the label from a JSON array of arrays, one for each image of the request."""
    return _label(json.loads(body)[0])


def inference_json_label(body: bytes) -> int:
    """Read the label from an inference response of the Open Inference Protocol."""
    return _label(json.loads(body)["outputs"][0]["data"])


def inference_binary_label(body: bytes) -> int:
    """Read the label from an inference response whose JSON is followed by ten float32."""
    return _label(np.frombuffer(body[-4 * _PROBABILITIES :], "<f4"))


def _label(probabilities: list[float] | NDArray[np.float32]) -> int:
    if len(probabilities) != _PROBABILITIES:
        raise ValueError(f"an answer holds {len(probabilities)} probabilities instead of {_PROBABILITIES}")
    return int(np.argmax(probabilities))


def _dumps(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
