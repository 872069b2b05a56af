from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from bundle.manifest import Precision
from bundle.media import TensorDecoding
from tests import tiny
from tests.calibrated import splits
from training.report.answers import Answers, Subject, answer_all
from training.report.gallery import held_out, render_gallery, write_gallery
from training.report.pictures import show_item


def section(page: str, key: str) -> str:
    match = re.search(rf'<section id="{key}">(.*?)</section>', page, re.DOTALL)
    assert match is not None, key
    return match[1]


def test_the_splits_that_no_weight_was_fitted_on_are_looked_at() -> None:
    assert list(held_out(splits())) == ["validation", "temperature", "conformal"]


def test_the_least_sure_items_are_shown_as_they_are(
    subject: Subject, answers: Mapping[Precision, Answers], int8: Answers
) -> None:
    page = render_gallery(subject, answers, held_out(splits()))
    assert page is not None
    assert subject.items is not None
    text = page.decode()
    shown = section(text, "unsure")
    assert shown.count('<div class="item">') == 24
    least = np.argsort(int8.confidences)[0]
    first = shown[: shown.index("</div>", shown.index('class="item"'))]
    assert show_item(subject.manifest, subject.items[least]) in first
    right, answer = (tiny.LABELS[i] for i in (int8.labels[least], int8.chosen[least]))
    assert f"{right} → {answer}" in first
    assert f"confidence {int8.confidences[least]:.3f}" in first
    assert subject.groups is not None
    assert str(subject.groups[least]) in first


def test_wrong_answers_are_wrong_and_the_surest_comes_first(
    subject: Subject, answers: Mapping[Precision, Answers], int8: Answers
) -> None:
    page = render_gallery(subject, answers, {})
    assert page is not None
    shown = section(page.decode(), "wrong")
    pairs = re.findall(r"(\w+) → (\w+)<br>confidence ([0-9.]+)", shown)
    assert len(pairs) == min(60, (~int8.correct).sum())
    assert all(right != answer for right, answer, _ in pairs)
    sure = [float(confidence) for *_, confidence in pairs]
    assert sure == sorted(sure, reverse=True)


def test_features_are_shown_by_what_drives_them_most(
    subject: Subject, answers: Mapping[Precision, Answers], int8: Answers
) -> None:
    page = render_gallery(subject, answers, {})
    assert page is not None
    assert int8.features is not None
    rows = re.findall(r"feature (\d+)<br><span class=\"dim\">([0-9.]+) – ([0-9.]+)", page.decode())
    assert len(rows) == 16
    for unit, low, high in rows:
        best = np.sort(int8.features[:, int(unit)])[::-1]
        assert (float(low), float(high)) == (round(best[8], 2), round(best[0], 2))


def test_labels_that_were_changed_stand_among_the_suspects(subject: Subject) -> None:
    labels = np.array([tiny.image_logits(item[np.newaxis])[0].argmax() for item in subject.items or []])
    surest = int(answer_all(subject.predictors["int8"], subject.rows, labels).confidences.argmax())
    changed = labels.copy()
    changed[surest] = (labels[surest] + 1) % 3
    found = replace(subject, labels=changed)
    answers = {"int8": answer_all(subject.predictors["int8"], subject.rows, changed)}
    page = render_gallery(found, answers, {})  # type: ignore[arg-type]
    assert page is not None
    assert f"test {surest}<" in section(page.decode(), "suspects")


def test_the_gallery_of_sounds_shows_states_over_time(sounds: Subject, tmp_path: Path) -> None:
    answers = {"int8": answer_all(sounds.predictors["int8"], sounds.rows, sounds.labels)}
    path = tmp_path / "runs" / "gallery.html"
    assert write_gallery(path, sounds, answers, {})  # type: ignore[arg-type]
    text = path.read_text()
    assert section(text, "states").count("<svg") == 4
    assert "audio/wav" in section(text, "unsure")


def test_items_that_are_no_pictures_have_no_gallery(
    subject: Subject, answers: Mapping[Precision, Answers], tmp_path: Path
) -> None:
    predictor = subject.predictors["int8"]
    manifest = subject.manifest.model_copy(update={"decoding": TensorDecoding()})
    changed = replace(predictor, bundle=replace(predictor.bundle, manifest=manifest))
    bare = replace(subject, predictors={"int8": changed})
    assert not write_gallery(tmp_path / "gallery.html", bare, answers, {})
    assert list(tmp_path.iterdir()) == []
