"""The LSTM's recipe from splits to a bundle that serves, in two steps of training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from bundle.predictor import load_predictor
from bundle.repository import read_bundle
from tests.small import FIT, HIDDEN, OPEN_GATES, vowel_splits
from training.config import Places
from training.data import fsdd
from training.errors import DataError
from training.isolation import allowed_shift
from training.networks.log_mel import LogMel
from training.networks.speech_lstm import ANCHORS
from training.recipes import spoken_digits_lstm
from training.recipes.spoken_digits_lstm import (
    PARITY_LENGTHS,
    SpokenDigitsLstmConfig,
    facts,
    golden_inputs,
    pad,
    parity_batches,
    train,
)

CONFIG = SpokenDigitsLstmConfig(fit=FIT, gates=OPEN_GATES, hidden=HIDDEN)
pytestmark = pytest.mark.filterwarnings(
    "ignore:The number of training batches .* is smaller than the logging"
)


def places_in(folder: Path) -> Places:
    return Places(data_dir=folder / "data", models_dir=folder / "models", runs_dir=folder / "runs")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published bundle."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fsdd, "load_fsdd", lambda _: vowel_splits())
        return train(CONFIG, places_in(tmp_path_factory.mktemp("lstm")))


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_the_bundle_loads_and_answers_alike_whatever_the_neighbours(directory: Path, precision: Any) -> None:
    predictor = load_predictor(directory, precision=precision)
    assert (predictor.precision, predictor.fallback) == (precision, None)
    predictor.warm_up()
    rows = predictor.rows(vowel_splits().test.items)
    together = predictor.run_all(rows)
    assert together.features.shape == (20, HIDDEN)
    alone = np.concatenate([predictor.run([row]).logits for row in rows])
    np.testing.assert_allclose(together.logits, alone, atol=1e-3 if precision == "int8" else 1e-5)


def test_the_manifest_tells_what_was_made(directory: Path) -> None:
    manifest = read_bundle(directory).manifest
    assert (manifest.name, manifest.version, manifest.max_batch_size) == ("spoken-digits-lstm", 1, 8)
    assert manifest.provenance.config_sha256 == CONFIG.sha256()
    assert manifest.provenance.data_sha256 == fsdd.data_sha256()
    quantization = manifest.graphs["int8"].quantization
    assert quantization is not None
    assert quantization.method == "dynamic"
    assert fsdd.LICENCE in (directory / "README.md").read_text()
    assert fsdd.ATTRIBUTION in (directory / "README.md").read_text()


def test_the_range_of_the_front_end_is_that_of_the_training_sounds(directory: Path) -> None:
    examples = vowel_splits().train
    front_end = LogMel()
    front_end.fit_range(*pad(list(zip(examples.items, examples.labels, strict=True)))[:2])
    for precision, anchors in (("fp32", 0), ("int8", ANCHORS)):
        graph = onnx.load(directory / f"model.{precision}.onnx").graph
        stored = [onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer]
        bands = [array[:40] for array in stored if array.shape == (40 + anchors,)]
        for expected in (front_end.low, front_end.high, front_end.mean, front_end.std):
            assert any(np.allclose(array, expected, rtol=1e-3) for array in bands)


def test_the_batch_of_the_manifest_was_searched_for_bad_neighbours(directory: Path) -> None:
    for graph in read_bundle(directory).manifest.graphs.values():
        assert graph.metrics is not None
        assert graph.metrics.mate_shift is not None
        assert graph.metrics.mate_shift <= allowed_shift(graph)


def test_without_data_the_job_stops_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fsdd, "URL", "http://127.0.0.1:1/archive.tar.gz")
    places = places_in(tmp_path)
    with pytest.raises(DataError, match=r"recordings/0_george_0\.wav is not there"):
        train(CONFIG, places)
    assert not places.runs_dir.exists()


def test_padding_keeps_each_sound_and_its_length() -> None:
    examples = vowel_splits().train
    samples, lengths, labels = pad(list(zip(examples.items[:5], examples.labels[:5], strict=True)))
    assert lengths.tolist() == [len(item) for item in examples.items[:5]]
    assert labels.tolist() == examples.labels[:5].tolist()
    assert (labels.dtype, samples.dtype) == (torch.int64, torch.float32)
    for row, item in zip(samples.numpy(), examples.items, strict=False):
        assert np.array_equal(row[: len(item)], item)
        assert not row[len(item) :].any()


def test_parity_is_checked_from_a_single_sample_to_more_than_any_recording() -> None:
    lengths = [row for batch in PARITY_LENGTHS for row in batch]
    assert min(lengths) == 1
    assert max(lengths) >= 3 * 8_000
    assert len({len(batch) for batch in PARITY_LENGTHS}) >= 3
    for (samples, found), expected in zip(parity_batches(), PARITY_LENGTHS, strict=True):
        assert tuple(found.tolist()) == expected
        assert samples.shape == (len(expected), max(expected))


def test_golden_sounds_differ_in_length_and_are_padded_with_zeros() -> None:
    golden = golden_inputs()
    assert len(set(golden["lengths"].tolist())) == len(golden["lengths"]) == len(golden["samples"])
    for row, length in zip(golden["samples"], golden["lengths"], strict=True):
        assert not row[length:].any()
        assert np.abs(row[:length]).max() == pytest.approx(0.5)


def test_the_facts_agree_with_the_splits_of_the_data_set() -> None:
    card = facts(CONFIG).card.data
    for takes in fsdd.SPLIT_TAKES.values():
        assert f"{takes[0]}-{takes[-1]}" in card


def test_the_usual_augmentation_leaves_the_digest_of_earlier_bundles_as_it_was() -> None:
    assert "augmentation" not in CONFIG.model_dump()
    strong = CONFIG.model_copy(update={"augmentation": "strong"})
    assert strong.model_dump()["augmentation"] == "strong"
    assert strong.sha256() != CONFIG.sha256()


@pytest.mark.parametrize("strong", [False, True])
def test_recordings_are_varied_as_much_as_the_configuration_says(
    strong: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def record(name: str) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
        def vary(samples: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            calls.append(name)
            return samples, lengths

        return vary

    for name in ("vary_speech", "vary_speaker"):
        monkeypatch.setattr(spoken_digits_lstm, name, record(name))
    monkeypatch.setattr(fsdd, "load_fsdd", lambda _: vowel_splits())
    train(CONFIG.model_copy(update={"augmentation": "strong"}) if strong else CONFIG, places_in(tmp_path))
    assert calls == ["vary_speaker" if strong else "vary_speech"] * 2
