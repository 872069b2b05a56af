"""The list of the 3,000 recordings, and their splits on a small forged data set."""

from __future__ import annotations

import hashlib
import io
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from training.data import fsdd
from training.data.fsdd import LABELS, SPLIT_TAKES, checksums, load_fsdd
from training.errors import DataError

SPEAKERS = {"george", "jackson", "lucas", "nicolas", "theo", "yweweler"}


def test_the_whole_list_of_checksums_parses() -> None:
    found = checksums()
    keys = [re.fullmatch(r"recordings/([0-9])_([a-z]+)_([0-9]{1,2})\.wav", name) for name in found]
    assert all(keys)
    expected = {(str(d), s, str(t)) for d in range(10) for s in SPEAKERS for t in range(50)}
    assert {match.groups() for match in keys if match} == expected
    assert len(found) == 3000
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in found.values())


def test_every_take_stands_in_just_one_split_and_the_test_takes_are_the_official_ones() -> None:
    takes = Counter(take for part in SPLIT_TAKES.values() for take in part)
    assert takes == Counter(range(50))
    assert list(SPLIT_TAKES["test"]) == [0, 1, 2, 3, 4]


def test_the_digest_of_the_data_is_fixed() -> None:
    assert fsdd.data_sha256() == fsdd.data_sha256()
    assert re.fullmatch("[0-9a-f]{64}", fsdd.data_sha256())


def wav(sound: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, sound, 8_000, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two speakers, two digits, 50 takes; a recording's first sample tells its digit and take."""
    sums = {}
    (tmp_path / "fsdd" / "recordings").mkdir(parents=True)
    for digit in (3, 7):
        for speaker in ("ann", "bob"):
            for take in range(50):
                sound = np.zeros(40 + take)
                sound[0] = (digit * 100 + take) / 32768
                name = f"recordings/{digit}_{speaker}_{take}.wav"
                content = wav(sound)
                (tmp_path / "fsdd" / name).write_bytes(content)
                sums[name] = hashlib.sha256(content).hexdigest()
    monkeypatch.setattr(fsdd, "checksums", lambda: sums)
    monkeypatch.setattr(fsdd, "URL", "http://127.0.0.1:1")
    return tmp_path


def test_recordings_are_cut_by_take_into_five_disjoint_splits(data_dir: Path) -> None:
    splits = load_fsdd(data_dir)
    assert sorted(np.concatenate([part.ids for _, part in splits])) == list(range(200))
    for name, part in splits:
        assert len(part) == 4 * len(SPLIT_TAKES[name])
        marks = [round(float(item[0]) * 32768) for item in part.items]
        assert {mark % 100 for mark in marks} == set(SPLIT_TAKES[name])
        assert [int(LABELS[label]) for label in part.labels] == [mark // 100 for mark in marks]
        assert [len(item) - 40 for item in part.items] == [mark % 100 for mark in marks]
        assert {item.dtype for item in part.items} == {np.dtype(np.float32)}


def test_every_split_has_the_same_speakers_and_digits(data_dir: Path) -> None:
    for name, part in load_fsdd(data_dir):
        assert Counter(part.labels.tolist()) == {digit: 2 * len(SPLIT_TAKES[name]) for digit in (3, 7)}


def test_the_groups_are_the_speakers(data_dir: Path) -> None:
    for name, part in load_fsdd(data_dir):
        assert part.groups is not None
        # By name: digit, then speaker, then take.
        assert (
            part.groups.tolist() == (["ann"] * len(SPLIT_TAKES[name]) + ["bob"] * len(SPLIT_TAKES[name])) * 2
        )


def test_the_splits_are_always_the_same(data_dir: Path) -> None:
    for (_, a), (_, b) in zip(load_fsdd(data_dir), load_fsdd(data_dir), strict=True):
        assert np.array_equal(a.ids, b.ids)


def test_a_missing_recording_is_named(data_dir: Path) -> None:
    (data_dir / "fsdd" / "recordings" / "7_bob_13.wav").unlink()
    with pytest.raises(DataError, match=r"recordings/7_bob_13\.wav is not there"):
        load_fsdd(data_dir)


@pytest.mark.parametrize("name", ["recordings/x_ann_0.wav", "recordings/1_ann_0.mp3", "1_ann_0.wav"])
def test_a_name_that_is_no_recording_is_refused(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (data_dir / "fsdd" / name).write_bytes(b"x")
    monkeypatch.setattr(fsdd, "checksums", lambda: {name: hashlib.sha256(b"x").hexdigest()})
    with pytest.raises(ValueError, match="is not the name of a recording"):
        load_fsdd(data_dir)
