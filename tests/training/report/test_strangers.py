from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from bundle.media import AudioDecoding
from bundle.novelty import energy, novelty_p_values
from training.report.answers import Answers, Subject
from training.report.strangers import derive_strangers, measure_novelty


def test_strangers_are_told_from_what_is_familiar(subject: Subject, int8: Answers) -> None:
    predictor = subject.predictors["int8"]
    found = measure_novelty(subject, predictor, int8)
    assert found is not None
    assert int8.novelty is not None
    assert int8.evidence is not None
    assert found.false_flags == (int8.novelty <= 0.05).mean()
    kinds = {each.name: each for each in found.strangers}
    assert list(kinds) == ["turned by 90 degrees", "dark and light swapped", "darkness"]
    assert (kinds["darkness"].n, kinds["turned by 90 degrees"].n) == (4, 800)
    outputs = predictor.run_all(predictor.rows(subject.strangers["darkness"]))
    scores = (energy(outputs.logits), int8.evidence.classes.familiarity(outputs.features))
    p_values, _ = novelty_p_values((int8.evidence.energy, int8.evidence.familiarity), scores)
    expected = roc_auc_score([0] * 800 + [1] * 4, -np.concatenate([int8.novelty, p_values]))
    assert kinds["darkness"].auroc == pytest.approx(expected)
    assert kinds["darkness"].flagged == (p_values <= 0.05).mean()


def test_without_evidence_nothing_is_new(subject: Subject, int8: Answers) -> None:
    assert measure_novelty(subject, subject.predictors["int8"], replace(int8, evidence=None)) is None


def test_images_are_turned_and_swapped(subject: Subject) -> None:
    assert subject.items is not None
    derived = dict(derive_strangers(subject.manifest, subject.items[:1]))
    np.testing.assert_array_equal(derived["turned by 90 degrees"][0], np.rot90(subject.items[0]))
    np.testing.assert_array_equal(derived["dark and light swapped"][0], 255 - subject.items[0])
    assert dict(derive_strangers(subject.manifest, None)) == {}


def test_sounds_are_played_backwards_and_drowned_in_noise_as_loud(subject: Subject) -> None:
    manifest = subject.manifest.model_copy(update={"decoding": AudioDecoding(sample_rate_hz=8000)})
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, 4000).astype(np.float32)
    derived = dict(derive_strangers(manifest, [sound]))
    np.testing.assert_array_equal(derived["played backwards"][0], sound[::-1])
    noise = derived["white noise as loud"][0]
    assert (noise.dtype, noise.shape) == (np.float32, sound.shape)
    assert np.sqrt((noise**2).mean()) == pytest.approx(np.sqrt((sound**2).mean()), rel=0.05)
    assert abs(np.corrcoef(noise, sound)[0, 1]) < 0.1
