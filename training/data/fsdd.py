"""Free Spoken Digit Dataset: 3,000 recordings of ten digits by six speakers, 8 kHz mono, CC BY-SA 4.0."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bundle.decoding import decode_audio
from bundle.media import AudioDecoding
from training.data.files import digest_of, ensure_archive
from training.data.splits import Examples, Splits

FOLDER = "fsdd"
COMMIT = "26eb9aaf76e81b692f806f9140c2d2777410d7a1"
URL = f"https://github.com/Jakobovski/free-spoken-digit-dataset/archive/{COMMIT}.tar.gz"
LICENCE = "CC BY-SA 4.0"
ATTRIBUTION = "Free Spoken Digit Dataset, by Zohar Jackson and contributors"
LABELS = tuple("0123456789")
DECODING = AudioDecoding(sample_rate_hz=8_000)
MAX_AUDIO_S = 30.0
# Takes 0-4 are the official test split. A take holds each digit of each speaker once, so every
# split has the same speakers and digits: what the model knows of a *new* speaker is not measured.
SPLIT_TAKES = {
    "test": range(0, 5),
    "validation": range(5, 10),
    "temperature": range(10, 14),
    "conformal": range(14, 22),
    "train": range(22, 50),
}
_NAME = re.compile(r"recordings/(\d)_([a-z]+)_(\d+)\.wav")


@cache
def checksums() -> dict[str, str]:
    """Return path -> SHA-256 of the published recordings, as `sha256sum` writes them."""
    text = resources.files(__package__).joinpath("fsdd.sha256").read_text(encoding="utf-8")
    return {name: digest for digest, name in (line.split() for line in text.splitlines())}


def data_sha256() -> str:
    """Return the digest of the published files."""
    return digest_of(checksums())


def load_fsdd(data_dir: Path) -> Splits:
    """Fetch if needed, verify, decode and split the recordings by take.

    Returns:
        Splits whose items are (time,) float32 samples in -1..1 at 8 kHz, of differing lengths, and whose
        groups are the speakers.

    Raises:
        DataError: the files are not there and cannot be fetched, or are not the published ones.
    """
    folder = data_dir / FOLDER
    ensure_archive(folder, checksums(), URL)
    names = sorted(checksums())
    keys = [_parse(name) for name in names]
    parts = {}
    for split, takes in SPLIT_TAKES.items():
        ids = [i for i, key in enumerate(keys) if key.take in takes]
        parts[split] = Examples(
            ids=np.array(ids, dtype=np.int64),
            items=[
                decode_audio((folder / names[i]).read_bytes(), DECODING, max_audio_s=MAX_AUDIO_S) for i in ids
            ],
            labels=np.array([keys[i].digit for i in ids], dtype=np.int64),
            groups=np.array([keys[i].speaker for i in ids], dtype=np.str_),
        )
    return Splits(**parts)


class Recording(NamedTuple):
    """What the name of a recording tells."""

    digit: int
    speaker: str
    take: int


def _parse(name: str) -> Recording:
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"{name} is not the name of a recording")
    return Recording(int(match[1]), match[2], int(match[3]))
