"""What `/metrics` of the real service tells after some calls of the committed models."""

from __future__ import annotations

import functools
import time

import httpx
import numpy as np

from tests.conftest import ROOT, running_service
from tests.deploy.rules import sample_names

_GATHERED_S = 0.5


@functools.cache
def exposition() -> str:
    """Start the service, predict, judge and fail once each; return the metrics."""
    rows = np.zeros((3, 28, 28), np.uint8).tolist()
    with (
        running_service("--models", str(ROOT / "models")) as server,
        httpx.Client(base_url=server.url) as client,
    ):
        for path in ("/v1/models/mnist-cnn:predict", "/v1/models/mnist-cnn:confidence"):
            assert client.post(path, json={"instances": rows}).status_code == 200
        assert client.post("/v1/models/mnist-cnn:predict", json={}).status_code == 400
        time.sleep(_GATHERED_S)  # what is counted is handed in a little later
        return client.get("/metrics").text


@functools.cache
def exposed() -> frozenset[str]:
    """The names of all samples that the service tells."""
    return frozenset(sample_names(exposition()))
