from pathlib import Path

import numpy as np
import pytest

from bundle.confidence import RowConfidence, assess
from bundle.predictor import Predictor, load_predictor
from service.api.outputs import render_predictions
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
