from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle.decoding import Limits, decode_media, decode_text
from bundle.errors import InputError
from bundle.media import AudioDecoding, ImageDecoding, TensorDecoding, TextDecoding

MODEL = TextDecoding(alphabet="abcé😀 ", unknown_index=6, max_characters=50)


@given(st.text(st.sampled_from(MODEL.alphabet), min_size=1, max_size=50))
def test_text_of_the_alphabet_can_be_read_back_from_its_indices(text: str) -> None:
    found = decode_text(text.encode(), MODEL)
    assert "".join(MODEL.alphabet[i] for i in found) == text
    assert found.dtype == np.int64


@given(st.text(st.characters(exclude_characters=MODEL.alphabet, codec="utf-8"), min_size=1, max_size=50))
def test_every_other_character_has_the_unknown_index(text: str) -> None:
    assert decode_text(text.encode(), MODEL).tolist() == [6] * len(text)


@pytest.mark.parametrize("length", [0, 51])
def test_text_that_is_empty_or_too_long_is_refused(length: int) -> None:
    with pytest.raises(InputError, match=f"the text has {length} characters; 1 to 50 are allowed"):
        decode_text(b"a" * length, MODEL)


def test_characters_are_counted_and_not_bytes() -> None:
    assert decode_text(("😀" * 50).encode(), MODEL).tolist() == [4] * 50


@pytest.mark.parametrize("body", [b"\xff", "é".encode("latin-1"), "é".encode()[:1], b"\xed\xa0\x80"])
def test_bytes_that_are_not_utf_8_are_refused_in_one_line(body: bytes) -> None:
    with pytest.raises(InputError, match=r"^the text is not UTF-8: [^\n]+$"):
        decode_text(body, MODEL)


@given(st.binary(max_size=60))
def test_arbitrary_bytes_are_decoded_or_refused_and_nothing_else(body: bytes) -> None:
    try:
        found = decode_text(body, MODEL)
    except InputError:
        return
    assert len(found) == len(body.decode())


def test_media_go_to_the_decoder_that_the_manifest_names() -> None:
    assert decode_media(b"ab", MODEL, Limits()).tolist() == [0, 1]
    with pytest.raises(InputError, match="PNG or JPEG"):
        decode_media(b"ab", ImageDecoding(height=4, width=4, channels=1, background=0), Limits())
    with pytest.raises(InputError, match="WAV"):
        decode_media(b"ab", AudioDecoding(sample_rate_hz=8000), Limits())
    with pytest.raises(InputError, match="takes tensors, no media"):
        decode_media(b"ab", TensorDecoding(), Limits())


@pytest.mark.parametrize("decoding", [MODEL, AudioDecoding(sample_rate_hz=8000), TensorDecoding()])
def test_only_images_can_be_inverted(decoding: TextDecoding | AudioDecoding | TensorDecoding) -> None:
    with pytest.raises(InputError, match="invert is for models that take images"):
        decode_media(b"ab", decoding, Limits(), invert=True)
