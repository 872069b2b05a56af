"""The rivals: other model servers, each as its own documentation would set it up, all serving the same model.

Every folder here holds what runs in a rival's own virtual environment: its pinned requirements and a
`server.py` that imports nothing of this project. What all of them share: one ONNX Runtime session for each
process on one thread without spinning, and batches of at most 8 of what has arrived, where the rival batches.
"""

from __future__ import annotations

from pathlib import Path

from bench.peers.bodies import (
    bare_json_label,
    inference_binary_label,
    inference_json,
    inference_json_label,
    json_label,
    json_pixels,
    raw_pixels,
)
from bench.peers.peer import Peer, Wire

__all__ = ["PEERS", "Peer", "Wire"]

_HERE = Path(__file__).parent
_JSON = "application/json"
_RAW = "application/octet-stream"
_INFER = "/v2/models/digits/infer"

PEERS: tuple[Peer, ...] = (
    Peer(
        name="fastapi",
        title="FastAPI + pydantic",
        package="fastapi",
        folder=_HERE / "fastapi",
        requests={"json": Wire("/predict", _JSON, json_pixels, json_label)},
        ready_path="/health",
    ),
    Peer(
        name="mosec",
        title="mosec",
        package="mosec",
        folder=_HERE / "mosec",
        requests={
            "json": Wire("/inference", _JSON, json_pixels, json_label),
            "binary": Wire("/inference", _RAW, raw_pixels, json_label),
        },
        ready_path="/",
    ),
    Peer(
        name="litserve",
        title="LitServe",
        package="litserve",
        folder=_HERE / "litserve",
        requests={"json": Wire("/predict", _JSON, json_pixels, json_label)},
        ready_path="/health",
    ),
    Peer(
        name="bentoml",
        title="BentoML",
        package="bentoml",
        folder=_HERE / "bentoml",
        requests={"json": Wire("/predict", _JSON, json_pixels, bare_json_label)},
        ready_path="/readyz",
    ),
    Peer(
        name="mlserver",
        title="MLServer",
        package="mlserver",
        folder=_HERE / "mlserver",
        requests={"json": Wire(_INFER, _JSON, inference_json, inference_json_label)},
        ready_path="/v2/models/digits/ready",
        extra_ports=1,
    ),
    Peer(
        name="triton",
        title="Triton",
        package="nvidia-pytriton",
        folder=_HERE / "triton",
        requests={
            "json": Wire(_INFER, _JSON, inference_json, inference_json_label),
            # Triton's "raw binary request": no JSON in front of the tensor.
            "binary": Wire(
                _INFER, _RAW, raw_pixels, inference_binary_label, {"Inference-Header-Content-Length": "0"}
            ),
        },
        ready_path="/v2/models/digits/ready",
    ),
    Peer(
        name="torchserve",
        title="TorchServe",
        package="torchserve",
        folder=_HERE / "torchserve",
        requests={
            "json": Wire("/predictions/digits", _JSON, json_pixels, json_label),
            "binary": Wire("/predictions/digits", _RAW, raw_pixels, json_label),
        },
        ready_path="/ping",
        extra_ports=2,
    ),
)
