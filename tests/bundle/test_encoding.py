"""What a model was given becomes media again, and those become the same array again."""

from __future__ import annotations

import numpy as np
import pytest

from bundle.decoding import Limits, decode_media
from bundle.encoding import encode_media, media_type_of
from bundle.media import AudioDecoding, Decoding, ImageDecoding, TensorDecoding, TextDecoding

RANDOM = np.random.default_rng(3)
GREY = ImageDecoding(height=5, width=7, channels=1, background=0)
COLOUR = ImageDecoding(height=5, width=7, channels=3, background=0)
SOUND = AudioDecoding(sample_rate_hz=8000)
TEXT = TextDecoding(alphabet="abcé ", unknown_index=5, max_characters=100)


@pytest.mark.parametrize(
    ("decoding", "array", "media_type"),
    [
        (GREY, RANDOM.integers(0, 256, (5, 7), dtype=np.uint8), "image/png"),
        (COLOUR, RANDOM.integers(0, 256, (5, 7, 3), dtype=np.uint8), "image/png"),
        (GREY, RANDOM.integers(0, 256, (7, 5), dtype=np.uint8).T, "image/png"),  # not contiguous
        (SOUND, RANDOM.uniform(-1, 1, 777).astype(np.float32), "audio/wav"),
        (SOUND, np.array([1.0], np.float32), "audio/wav"),
        (TEXT, np.array([0, 3, 4, 2], np.int64), "text/plain"),
    ],
)
def test_an_item_comes_back_element_for_element(
    decoding: Decoding, array: np.ndarray, media_type: str
) -> None:
    assert media_type_of(decoding) == media_type
    decoded = decode_media(encode_media(array, decoding), decoding, Limits())
    assert decoded.dtype == array.dtype
    np.testing.assert_array_equal(decoded, array)


def test_a_character_that_the_model_does_not_know_is_shown_as_such() -> None:
    assert encode_media(np.array([0, 5, 1], np.int64), TEXT).decode() == "a\N{REPLACEMENT CHARACTER}b"


def test_tensors_are_no_media() -> None:
    assert media_type_of(TensorDecoding()) is None
    with pytest.raises(ValueError, match="takes tensors, no media"):
        encode_media(np.zeros(3), TensorDecoding())
