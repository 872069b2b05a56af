from __future__ import annotations

import numpy as np

from bundle.confidence import softmax
from tests import tiny
from training.report.answers import Subject
from training.report.occlusion import _starts, occlude


def test_the_fall_is_that_of_covering_each_pixel(subject: Subject) -> None:
    """Of 4 x 4 pixels a patch is a single one, so the map is one difference a pixel."""
    predictor = subject.predictors["fp32"]
    image = np.random.default_rng(5).integers(0, 256, (4, 4), dtype=np.uint8)
    whole = softmax(tiny.image_logits(image[np.newaxis])[0], predictor.temperature)
    answer = whole.argmax()
    expected = np.zeros((4, 4))
    for row in range(4):
        for column in range(4):
            covered = image.copy()
            covered[row, column] = 0
            found = softmax(tiny.image_logits(covered[np.newaxis])[0], predictor.temperature)
            expected[row, column] = whole[answer] - found[answer]
    np.testing.assert_allclose(occlude(predictor, image), expected, atol=1e-5)


def test_what_is_covered_already_changes_nothing(subject: Subject) -> None:
    assert np.abs(occlude(subject.predictors["fp32"], np.zeros((4, 4), np.uint8))).max() == 0


def test_patches_of_digits_are_seven_pixels_wide_and_move_by_three() -> None:
    assert _starts(28, 7) == list(range(0, 22, 3))
    assert _starts(30, 7)[-1] == 23  # the last one ends with the image
    assert _starts(4, 1) == [0, 1, 2, 3]
