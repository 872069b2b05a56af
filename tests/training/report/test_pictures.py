from __future__ import annotations

import base64
import io
import re

import numpy as np
import soundfile
from PIL import Image

from bundle.media import AudioDecoding
from training.report.answers import Subject
from training.report.pictures import show_item, show_shades, spectrogram


def content(tag: str, kind: str) -> bytes:
    match = re.search(rf'src="data:{kind};base64,([^"]+)"', tag)
    assert match is not None
    return base64.b64decode(match[1])


def test_an_image_is_shown_bit_for_bit(subject: Subject) -> None:
    assert subject.items is not None
    tag = show_item(subject.manifest, subject.items[0])
    shown = np.asarray(Image.open(io.BytesIO(content(tag, "image/png"))))
    np.testing.assert_array_equal(shown, subject.items[0])


def test_a_sound_is_shown_and_can_be_heard(subject: Subject) -> None:
    manifest = subject.manifest.model_copy(update={"decoding": AudioDecoding(sample_rate_hz=8000)})
    sound = np.sin(np.arange(4000) * 2 * np.pi * 1000 / 8000).astype(np.float32) * 0.5
    tag = show_item(manifest, sound)
    heard, rate_hz = soundfile.read(io.BytesIO(content(tag, "audio/wav")), dtype="float32")
    assert rate_hz == 8000
    np.testing.assert_allclose(heard, sound, atol=1e-4)
    shown = np.asarray(Image.open(io.BytesIO(content(tag, "image/png"))))
    brightest = shown.sum(axis=2).mean(axis=1).argmax()
    assert abs(brightest / len(shown) - 0.75) < 0.02  # a quarter of the way up: 1,000 of 4,000 Hz


def test_a_sound_of_a_few_samples_has_a_spectrogram() -> None:
    assert spectrogram(np.zeros(3, np.float32), 8000).ndim == 3


def test_shades_are_clear_where_there_is_nothing() -> None:
    shown = np.asarray(
        Image.open(io.BytesIO(content(show_shades(np.array([[0.0, 1.0, -1.0]])), "image/png")))
    )
    assert shown[0, 0, 3] <= 3
    assert min(shown[0, 1, 3], shown[0, 2, 3]) > 200
    assert shown[0, 1, 0] > shown[0, 1, 2]  # orange
    assert shown[0, 2, 2] > shown[0, 2, 0]  # blue
