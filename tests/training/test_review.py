"""Labelled items of a review queue: they are trained on, and nothing is measured on them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle.archive import save_arrays
from bundle.manifest import ReviewedItems
from bundle.repository import read_bundle
from tests.small import FIT, OPEN_GATES, WIDTHS, digit_splits, vowel_splits
from training.config import Places
from training.data import fsdd, mnist
from training.data.review import GROUP, Reviewed, add_reviewed, read_reviewed, with_reviewed
from training.data.splits import Examples, Splits
from training.errors import DataError, ExportError
from training.recipes import mnist_cnn, spoken_digits_lstm

CNN = mnist_cnn.facts(mnist_cnn.MnistCnnConfig()).inputs
LSTM = spoken_digits_lstm.facts(spoken_digits_lstm.SpokenDigitsLstmConfig()).inputs
RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (5, 28, 28), dtype=np.uint8)
LABELS = np.array([3, 1, 4, 1, 5])


def write(path: Path, **arrays: Any) -> Path:
    path.write_bytes(save_arrays(arrays))
    return path


def write_sounds(path: Path, lengths: list[int]) -> tuple[Path, list[np.ndarray]]:
    sounds = [RANDOM.uniform(-1, 1, length).astype(np.float32) for length in lengths]
    samples = np.zeros((len(lengths), max(lengths)), np.float32)
    for row, sound in zip(samples, sounds, strict=True):
        row[: len(sound)] = sound
    return write(path, samples=samples, lengths=np.array(lengths), labels=np.arange(len(lengths))), sounds


def test_images_are_read_as_they_were_written(tmp_path: Path) -> None:
    reviewed = read_reviewed(write(tmp_path / "x.npz", pixels=PIXELS, labels=LABELS), CNN, mnist.LABELS)
    np.testing.assert_array_equal(np.stack(reviewed.items), PIXELS)
    assert reviewed.labels.tolist() == LABELS.tolist()


def test_sounds_lose_their_padding(tmp_path: Path) -> None:
    path, sounds = write_sounds(tmp_path / "x.npz", [900, 1, 5000])
    reviewed = read_reviewed(path, LSTM, fsdd.LABELS)
    for item, sound in zip(reviewed.items, sounds, strict=True):
        np.testing.assert_array_equal(item, sound)


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        ({"pixels": PIXELS}, "holds pixels; expected are labels, pixels"),
        ({"pixels": PIXELS, "labels": LABELS, "x": LABELS}, "holds labels, pixels, x; expected are"),
        ({"pixels": PIXELS[:4], "labels": LABELS}, "differ in their number of items"),
        ({"pixels": PIXELS[:0], "labels": LABELS[:0]}, "or have none"),
        ({"pixels": PIXELS, "labels": np.array(7)}, "differ in their number of items"),
        ({"pixels": PIXELS, "labels": LABELS + 5}, "labels must be whole numbers from 0 to 9"),
        ({"pixels": PIXELS, "labels": LABELS - 2}, "labels must be whole numbers from 0 to 9"),
        ({"pixels": PIXELS, "labels": LABELS / 2}, "labels must be whole numbers from 0 to 9"),
        ({"pixels": PIXELS, "labels": LABELS[:, None]}, "labels must be whole numbers from 0 to 9"),
        ({"pixels": PIXELS.astype(float), "labels": LABELS}, "elements of float64 are no UINT8"),
        ({"pixels": PIXELS[:, :27], "labels": LABELS}, "an item has the shape [27, 28], expected [28, 28]"),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path: Path, arrays: dict[str, Any], problem: str) -> None:
    path = write(tmp_path / "x.npz", **arrays)
    with pytest.raises(DataError) as stop:
        read_reviewed(path, CNN, mnist.LABELS)
    assert str(stop.value).startswith(str(path))
    assert problem in str(stop.value)
    assert "\n" not in str(stop.value)


@pytest.mark.parametrize("lengths", [[0, 5, 5], [5, 11, 5], [1.0, 2.0, 3.0]])
def test_lengths_that_cannot_be_are_one_line(tmp_path: Path, lengths: list[Any]) -> None:
    samples = np.zeros((3, 10), np.float32)
    path = write(tmp_path / "x.npz", samples=samples, lengths=np.array(lengths), labels=np.arange(3))
    with pytest.raises(DataError, match="lengths must be whole numbers from 1 to 10"):
        read_reviewed(path, LSTM, fsdd.LABELS)


def test_values_out_of_range_are_one_line(tmp_path: Path) -> None:
    samples = np.full((3, 10), 2, np.float32)
    path = write(tmp_path / "x.npz", samples=samples, lengths=np.array([9, 9, 9]), labels=np.arange(3))
    with pytest.raises(DataError, match=r"holds values from 2\.0 to 2\.0; -1 to 1 are allowed"):
        read_reviewed(path, LSTM, fsdd.LABELS)


def test_a_file_that_is_none_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x\.npz cannot be read: No such file"):
        read_reviewed(tmp_path / "x.npz", CNN, mnist.LABELS)
    (tmp_path / "x.npz").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"x\.npz cannot be read"):
        read_reviewed(tmp_path / "x.npz", CNN, mnist.LABELS)


def test_they_are_added_to_the_train_split_alone() -> None:
    splits = digit_splits()
    more, added = add_reviewed(splits, Reviewed(list(PIXELS), LABELS, "a" * 64))
    assert added == 5
    for name, part in more:
        if name != "train":
            assert part is getattr(splits, name)
    assert len(more.train) == len(splits.train) + 5
    assert more.train.items[:-5] == splits.train.items
    np.testing.assert_array_equal(np.stack(more.train.items[-5:]), PIXELS)
    assert more.train.labels[-5:].tolist() == LABELS.tolist()
    everywhere = np.concatenate([part.ids for _, part in splits])
    assert set(more.train.ids[-5:]).isdisjoint(everywhere)
    assert more.train.groups is None


def test_an_item_that_judges_the_network_is_not_trained_on(caplog: pytest.LogCaptureFixture) -> None:
    splits = digit_splits()
    judges = [splits.test.items[3], splits.validation.items[0], splits.conformal.items[1]]
    items = [PIXELS[0], *judges, splits.train.items[0]]
    with caplog.at_level(logging.WARNING):
        more, added = add_reviewed(splits, Reviewed(items, LABELS, "a" * 64))
    assert added == 2
    assert more.train.labels[-2:].tolist() == [LABELS[0], LABELS[4]]
    assert "3 reviewed items stand in a split that is not trained on" in caplog.text
    with pytest.raises(DataError, match="none of the reviewed items can be added"):
        add_reviewed(splits, Reviewed(judges, LABELS[:3], "a" * 64))


def test_whom_they_come_from_is_not_known() -> None:
    splits = vowel_splits()
    spoken = Splits(
        **{
            name: Examples(part.ids, part.items, part.labels, np.array(["ann"] * len(part)))
            for name, part in splits
        }
    )
    more, _ = add_reviewed(spoken, Reviewed([np.zeros(9, np.float32)], LABELS[:1], "a" * 64))
    assert more.train.groups is not None
    assert more.train.groups[-2:].tolist() == ["ann", GROUP]


def test_the_configuration_tells_runs_apart(tmp_path: Path) -> None:
    config = mnist_cnn.MnistCnnConfig()
    digests = {config.sha256()}
    for n in (4, 5):
        path = write(tmp_path / f"{n}.npz", pixels=PIXELS[:n], labels=LABELS[:n])
        with_items, _ = with_reviewed(config, digit_splits(), path, CNN, mnist.LABELS)
        assert with_items.reviewed is not None
        assert with_items.reviewed.n == n
        digests.add(with_items.sha256())
    assert len(digests) == 3


@pytest.mark.filterwarnings("ignore:The number of training batches .* is smaller than the logging")
def test_a_bundle_tells_what_it_was_trained_on_beside_its_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = mnist_cnn.MnistCnnConfig(fit=FIT, gates=OPEN_GATES, widths=WIDTHS, max_batch_size=4)
    places = Places(data_dir=tmp_path, models_dir=tmp_path / "models", runs_dir=tmp_path / "runs")
    monkeypatch.setattr(mnist, "load_mnist", lambda _: digit_splits())
    path = write(tmp_path / "x.npz", pixels=PIXELS, labels=LABELS)
    directory = mnist_cnn.train(config, places, review=path)
    manifest = read_bundle(directory).manifest
    reviewed = manifest.provenance.reviewed
    assert reviewed == ReviewedItems(n=5, sha256=read_reviewed(path, CNN, mnist.LABELS).sha256)
    assert "5 labelled items of a review queue" in (directory / "README.md").read_text()
    (run,) = (tmp_path / "runs" / "mnist-cnn").iterdir()
    assert run.name == manifest.provenance.config_sha256[:12] != config.sha256()[:12]
    # Its weights are those of other data than the same job's without these items.
    with pytest.raises(ExportError, match="made with another configuration"):
        mnist_cnn.train(config, places, weights_from=directory)
    again = mnist_cnn.train(config, places, weights_from=directory, review=path)
    assert read_bundle(again).graph("fp32") == read_bundle(directory).graph("fp32")
