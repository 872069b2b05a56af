"""The headline figures of `:confidence`, over HTTP, on the whole test sets: none was fitted on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import httpx
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tests.conftest import LiveServer
from training.data.splits import Examples
from training.scores import expected_calibration_error

pytestmark = pytest.mark.realdata

_ROWS = 250


@dataclass(frozen=True)
class Told:
    """What `:confidence` told of n rows; each array has n entries."""

    confidence: np.ndarray
    correct: np.ndarray
    p_value_of_right: np.ndarray
    set_size: np.ndarray
    novelty: np.ndarray
    accepted: np.ndarray


def ask(url: str, call: str, bodies: list[tuple[bytes, str]], labels: np.ndarray) -> Told:
    """Ask about tensors; each body comes with its shape."""
    results = []
    with httpx.Client(base_url=url, timeout=60) as client:
        for body, shape in bodies:
            headers = {"content-type": "application/octet-stream", "x-tensor-shape": shape}
            answer = client.post(f"{call}?top_k=10&alpha=0.05", content=body, headers=headers)
            assert answer.status_code == 200, answer.text
            results += answer.json()["results"]
    assert len(results) == len(labels)
    p_values = np.zeros((len(results), 10))
    for row, result in zip(p_values, results, strict=True):
        for entry in result["top"]:
            row[entry["index"]] = entry["p_value"]
    return Told(
        confidence=np.array([result["confidence"] for result in results]),
        correct=np.array([result["index"] for result in results]) == labels,
        p_value_of_right=p_values[np.arange(len(labels)), labels],
        set_size=np.array([result["prediction_set"]["size"] for result in results]),
        novelty=np.array([result["ood"]["p_value"] for result in results]),
        accepted=np.array([result["accepted"] for result in results]),
    )


def aurc(told: Told) -> float:
    """Area under the risk-coverage curve: the mean error rate over all shares of the surest answers."""
    wrong = ~told.correct[np.argsort(-told.confidence, kind="stable")]
    return float((np.cumsum(wrong) / np.arange(1, len(wrong) + 1)).mean())


def null_p_value(told: Told, rounds: int = 500) -> float:
    """How often an answer that is right exactly as often as it says has a larger calibration error."""
    random = np.random.default_rng(0)
    found = expected_calibration_error(told.confidence, told.correct)
    drawn = [
        expected_calibration_error(told.confidence, random.random(len(told.confidence)) < told.confidence)
        for _ in range(rounds)
    ]
    return float(np.mean([value >= found for value in drawn]))


def digits(images: np.ndarray) -> list[tuple[bytes, str]]:
    parts = [images[start : start + _ROWS] for start in range(0, len(images), _ROWS)]
    return [(np.ascontiguousarray(part).tobytes(), f"{len(part)},28,28") for part in parts]


def test_digits_are_told_with_confidence_that_holds(
    mnist_test: Examples, start_service: Callable[..., LiveServer]
) -> None:
    url, call = start_service().url, "/v1/models/mnist-cnn:confidence"
    images = np.stack(mnist_test.items)
    told = ask(url, call, digits(images), mnist_test.labels)
    assert expected_calibration_error(told.confidence, told.correct) <= 0.003
    assert null_p_value(told) >= 0.01
    # Before the answer itself is put into a set that would be without it.
    assert 0.886 <= (told.p_value_of_right > 0.1).mean() <= 0.913
    assert 0.940 <= (told.p_value_of_right > 0.05).mean() <= 0.959
    assert told.set_size.mean() <= 1.01
    assert aurc(told) <= 0.25e-3
    assert told.accepted.mean() >= 0.96
    assert (~told.correct[told.accepted]).mean() <= 0.005
    turned = ask(url, call, digits(np.rot90(images, axes=(1, 2))), mnist_test.labels)
    new = np.repeat([0, 1], len(images))
    assert roc_auc_score(new, -np.concatenate([told.novelty, turned.novelty])) >= 0.98


def test_spoken_digits_are_told_with_confidence_that_holds(
    fsdd_test: Examples, start_service: Callable[..., LiveServer]
) -> None:
    bodies = [(item.tobytes(), f"1,{len(item)}") for item in fsdd_test.items]
    told = ask(start_service().url, "/v1/models/spoken-digits-lstm:confidence", bodies, fsdd_test.labels)
    assert expected_calibration_error(told.confidence, told.correct) <= 0.03
    assert null_p_value(told) >= 0.01
    assert 0.830 <= (told.p_value_of_right > 0.1).mean() <= 0.957
    assert 0.897 <= (told.p_value_of_right > 0.05).mean() <= 0.987
    assert told.set_size.mean() <= 1.10
    assert 0.02 <= (told.novelty <= 0.05).mean() <= 0.09
    assert aurc(told) <= 3e-3
    assert told.accepted.mean() >= 0.90
    assert (~told.correct[told.accepted]).mean() <= 0.02
