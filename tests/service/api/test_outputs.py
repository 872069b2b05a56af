from pathlib import Path

import numpy as np
import pytest

from bundle.confidence import RowConfidence, assess, softmax
from bundle.predictor import Predictor, load_predictor
from service.api.outputs import render_confidence, render_predictions
from tests import tiny
from tests.service.calls import assert_predictions

LOGITS = np.array([[1, 4, 2], [3, -1, 0]], np.float32)


@pytest.fixture(scope="module")
def predictor(repository: Path) -> Predictor:
    return load_predictor(repository / "tiny-image" / "2")


def rows(predictor: Predictor) -> list[RowConfidence]:
    return assess(LOGITS, predictor.temperature)


def test_predictions_hold_the_calibrated_probabilities_of_the_best_labels(predictor: Predictor) -> None:
    content = render_predictions(predictor, rows(predictor), 2)
    assert (content["model"], content["version"]) == ("tiny-image", "2")
    assert [len(prediction["top"]) for prediction in content["predictions"]] == [2, 2]
    assert [prediction["label"] for prediction in content["predictions"]] == ["one", "zero"]
    assert_predictions(content["predictions"], LOGITS)


def test_more_labels_than_there_are_gives_all(predictor: Predictor) -> None:
    (prediction, _) = render_predictions(predictor, rows(predictor), 10**30)["predictions"]
    assert [top["label"] for top in prediction["top"]] == ["one", "two", "zero"]
    assert sum(top["probability"] for top in prediction["top"]) == pytest.approx(1)


def test_confidence_is_calibrated_and_says_how_that_is_known(predictor: Predictor) -> None:
    content = render_confidence(predictor, rows(predictor), 1)
    results = content.pop("results")
    assert content == {
        "schema": "confidence/1",
        "model": "tiny-image",
        "version": "2",
        "bundle": {"precision": "int8", "sha256": predictor.bundle.manifest_sha256},
        "calibration": {
            "status": "partial",
            "method": "temperature_map",
            "temperature": tiny.TEMPERATURE,
            "n": 100,
        },
    }
    for result, raw, calibrated in zip(results, softmax(LOGITS), softmax(LOGITS, 2), strict=True):
        best = int(calibrated.argmax())
        assert (result["label"], result["index"]) == (tiny.LABELS[best], best)
        assert result["confidence"] == pytest.approx(calibrated[best])
        assert result["confidence_raw"] == pytest.approx(raw[best])
        assert result["margin"] == pytest.approx(calibrated[best] - np.sort(calibrated)[-2])
        assert result["entropy_bits"] == pytest.approx(-(calibrated * np.log2(calibrated)).sum())
        assert result["top"] == [
            {"label": result["label"], "index": best, "probability": pytest.approx(calibrated[best])}
        ]


def test_without_a_fitted_temperature_the_confidence_is_null_and_the_status_missing(tmp_path: Path) -> None:
    predictor = load_predictor(tiny.make_image_bundle(tmp_path, calibrated=False))
    content = render_confidence(predictor, rows(predictor), 3)
    assert content["calibration"] == {"status": "missing", "method": None, "temperature": None, "n": None}
    assert [result["confidence"] for result in content["results"]] == [None, None]
    assert content["results"][0]["confidence_raw"] == pytest.approx(softmax(LOGITS)[0, 1])
