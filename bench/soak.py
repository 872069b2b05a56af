"""A million requests of mixed shapes: does the memory stay where it is?"""

from __future__ import annotations

import logging
import time
from pathlib import Path

import numpy as np

from bench.contenders import ours
from bench.inputs import digits
from bench.load import closed_loop
from bench.octet import counted
from bench.results import Results
from bench.wire import CNN, LSTM, OCTETS, binary_request, http_request, json_request, png_request

logger = logging.getLogger(__name__)

_EARLY = 10_000
_SECONDS = 2.0


def soak(results: Results, requests: int, folder: Path) -> None:
    """Send requests of every shape to one process and note its memory after 10,000 and at the end."""
    mixed = mixed_requests()
    with ours(folder, workers=1) as service:
        port, answered, began_s = service.server.port, 0.0, time.monotonic()
        while answered < requests:
            closed_loop(port, mixed, 32, _SECONDS if answered else 0.5)
            answered = sum(
                value for labels, value in counted(port, "octet_requests_total").items() if labels[2] == "200"
            )
            memory = service.server.memory()
            if answered >= _EARLY and "resident after 10,000 requests, MB" not in results.extras:
                results.extras["resident after 10,000 requests, MB"] = memory.resident_mb
            if int((time.monotonic() - began_s) / 30) != int((time.monotonic() - began_s - _SECONDS) / 30):
                logger.info("soak: %.0f requests, %.1f MB", answered, memory.resident_mb)
        results.extras["requests of mixed shapes"] = answered
        results.extras["resident after all requests, MB"] = memory.resident_mb


def mixed_requests() -> list[bytes]:
    """Return 2,000 requests: one to twelve images in every form, and sounds of up to four seconds."""
    random = np.random.default_rng(0)
    images = digits()
    requests = []
    for _ in range(2_000):
        kind = random.integers(10)
        pixels = images[random.integers(len(images), size=random.integers(1, 13))]
        if kind < 3:
            requests.append(http_request(CNN, OCTETS, pixels.tobytes()))
        elif kind < 6:
            requests.append(json_request(pixels[0]))
        elif kind < 7:
            requests.append(png_request(pixels[0]))
        else:
            length = int(np.exp(random.uniform(np.log(100), np.log(32_000))))
            requests.append(binary_request(random.uniform(-0.5, 0.5, length).astype("<f4"), LSTM))
    return requests
