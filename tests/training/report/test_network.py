from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from bundle.confidence import softmax
from bundle.manifest import Precision
from tests import small, tiny
from training.report.answers import Answers, Subject
from training.report.network import draw_images, listen, look_inside


def test_contributions_add_up_to_the_mean_logit(
    subject: Subject, answers: Mapping[Precision, Answers]
) -> None:
    found = look_inside(subject, answers).contributions
    assert found is not None
    fp32 = answers["fp32"]
    for label in range(3):
        own = fp32.labels == label
        expected = fp32.outputs.logits[own, label].mean()
        assert found.mean[label].sum() + found.bias[label] == pytest.approx(expected, rel=1e-4)
    assert found.error < 1e-4
    np.testing.assert_allclose(
        found.mean[0], tiny.WEIGHTS[:, 0] * fp32.outputs.features[fp32.labels == 0].mean(axis=0), rtol=1e-4
    )


def test_units_are_told_by_their_spread_and_by_label(
    subject: Subject, answers: Mapping[Precision, Answers]
) -> None:
    units = look_inside(subject, answers).units
    assert units is not None
    features = answers["int8"].outputs.features
    np.testing.assert_allclose(units.mean, features.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(units.deviation, features.std(axis=0), rtol=1e-4)
    np.testing.assert_allclose(units.active, (features != 0).mean(axis=0))
    np.testing.assert_allclose(
        units.by_label[1], features[answers["int8"].labels == 1].mean(axis=0), rtol=1e-5
    )
    assert units.shift is not None
    assert np.abs(units.shift).max() == 0  # the tiny graphs differ in their logits alone


def test_drawn_digits_have_the_form_of_the_model(
    subject: Subject, answers: Mapping[Precision, Answers]
) -> None:
    images = draw_images(subject.manifest)
    assert {(image.shape, str(image.dtype)) for image in images} == {((4, 4), "uint8")}
    found = look_inside(subject, answers).images
    assert len(found) == len(images) == 10
    for image, each in zip(images, found, strict=True):
        np.testing.assert_array_equal(each.image, image)
        probabilities = softmax(tiny.image_logits(image[np.newaxis])[0], answers["int8"].temperature)
        assert each.answer == tiny.LABELS[probabilities.argmax()]
        assert each.confidence == pytest.approx(probabilities.max(), abs=1e-3)
        assert set(each.falls) == {"int8", "fp32"}


def test_colours_and_light_grounds_are_drawn_as_the_model_takes_them(subject: Subject) -> None:
    def manifest(**change: object) -> object:
        decoding = subject.manifest.decoding.model_copy(update=change)
        return subject.manifest.model_copy(update={"decoding": decoding})

    dark, light = (draw_images(manifest(background=ground))[0] for ground in (0, 255))  # type: ignore[arg-type]
    np.testing.assert_array_equal(light, 255 - dark)
    assert draw_images(manifest(channels=3))[0].shape == (4, 4, 3)  # type: ignore[arg-type]
    assert draw_images(manifest(height=8)) == []  # type: ignore[arg-type]


def test_the_answer_so_far_ends_with_the_answer(sounds: Subject) -> None:
    assert sounds.items is not None
    found = listen(sounds, sounds.items[0])
    assert found is not None
    assert found.running is not None
    fp32 = sounds.predictors["fp32"]
    logits = fp32.run(sounds.rows[:1]).logits[0]
    np.testing.assert_allclose(found.running[-1], softmax(logits, fp32.temperature), atol=1e-4)
    assert found.running.shape == (len(found.states.hidden), 10)
    assert found.shift is not None
    assert found.shift.shape == found.states.hidden.shape == (len(found.running), small.HIDDEN)
    assert 0 < np.abs(found.shift).max() < 0.2


def test_a_network_without_images_or_an_lstm_shows_neither(
    subject: Subject, sounds: Subject, answers: Mapping[Precision, Answers]
) -> None:
    assert look_inside(subject, answers).sound is None
    assert listen(subject, np.zeros((4, 4), np.uint8)) is None
    assert draw_images(sounds.manifest) == []
