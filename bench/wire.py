"""What goes over the wire to this service: whole HTTP/1.1 requests, made before the clock starts."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from PIL import Image

CNN = "/v1/models/mnist-cnn:predict"
LSTM = "/v1/models/spoken-digits-lstm:predict"
CNN_V2 = "/v2/models/mnist-cnn/infer"
HEADER_LENGTH = "Inference-Header-Content-Length"
JSON = "application/json"
OCTETS = "application/octet-stream"


def http_request(
    path: str, content_type: str, body: bytes, headers: Mapping[str, str] | None = None
) -> bytes:
    """Return a POST as it goes over a connection."""
    fields = {"Host": "127.0.0.1", "Content-Type": content_type, "Content-Length": str(len(body))}
    lines = [
        f"POST {path} HTTP/1.1",
        *(f"{name}: {value}" for name, value in (fields | dict(headers or {})).items()),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def json_request(array: NDArray[Any], path: str = CNN) -> bytes:
    """Ask about one row as nested numbers."""
    return http_request(path, JSON, orjson.dumps({"instances": [array.tolist()]}))


def binary_request(array: NDArray[Any], path: str = CNN) -> bytes:
    """Ask about one row as a little-endian tensor."""
    shape = ",".join(map(str, (1, *array.shape)))
    return http_request(path, OCTETS, array.tobytes(), {"X-Tensor-Shape": shape})


def v2_body(pixels: NDArray[np.uint8]) -> tuple[bytes, dict[str, str]]:
    """Return the body that Triton's clients send by default for one image, and the header beside it."""
    size = {"binary_data_size": pixels.nbytes}
    tensor = {"name": "pixels", "shape": [1, *pixels.shape], "datatype": "UINT8", "parameters": size}
    document = orjson.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}})
    return document + pixels.tobytes(), {HEADER_LENGTH: str(len(document))}


def v2_request(pixels: NDArray[np.uint8], path: str = CNN_V2) -> bytes:
    """Ask about one image by the Open Inference Protocol with its binary extension."""
    body, headers = v2_body(pixels)
    return http_request(path, OCTETS, body, headers)


def png_request(pixels: NDArray[np.uint8], path: str = CNN) -> bytes:
    """Ask about one image as a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return http_request(path, "image/png", buffer.getvalue())
