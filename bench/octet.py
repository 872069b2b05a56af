"""This service, as a user starts it."""

from __future__ import annotations

import json
import shutil
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from bench.server import Server, free_port, running

ROOT = Path(__file__).parent.parent


@contextmanager
def octet(folder: Path, *flags: str, models: Path = ROOT / "models", workers: int = 2) -> Iterator[Server]:
    """Run the service with one thread in each worker.

    Args:
        folder: gets its log.
        flags: of `python -m service`.
    """
    port = free_port()
    command = [
        sys.executable, "-m", "service", "--port", str(port), "--models", str(models),
        "--workers", str(workers), "--threads", "1", "--drain-delay-s", "0", "--grpc-port", "off", *flags,
    ]  # fmt: skip
    with running(command, port, "/readyz", folder / f"octet-{port}.log") as server:
        yield server


def counted(port: int, name: str) -> dict[tuple[str, ...], float]:
    """Return label values, in the order of the labels' names -> value of a metric of a running service."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    }


def copy_models(target: Path, copies: int) -> Path:
    """Fill a model repository with the committed models and so many copies of the CNN under other names."""
    shutil.copytree(ROOT / "models", target)
    (source,) = (target / "mnist-cnn").iterdir()
    for i in range(copies):
        name = f"copy-{i}"
        shutil.copytree(source, target / name / source.name)
        path = target / name / source.name / "manifest.json"
        manifest = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(manifest | {"name": name}), encoding="utf-8")
    return target


def label_of(body: bytes) -> int:
    """Return the index of the label in an answer to `:predict`."""
    return int(json.loads(body)["predictions"][0]["index"])


def label_of_v2(body: bytes) -> int:
    """Return the index of the most probable label in a binary answer of the Open Inference Protocol."""
    document, end = json.JSONDecoder().raw_decode(body.decode("latin-1"))
    for output in document["outputs"]:
        size = output["parameters"]["binary_data_size"]
        if output["name"] == "probabilities":
            return int(np.frombuffer(body[end : end + size], "<f4").argmax())
        end += size
    raise ValueError("the answer has no probabilities")
