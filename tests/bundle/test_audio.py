from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from bundle.decoding import decode_audio
from bundle.errors import InputError
from bundle.media import AudioDecoding
from tests.bundle.damage import damaged

MODEL = AudioDecoding(sample_rate_hz=8000)
RANDOM = np.random.default_rng(0)
SUBTYPES = {"PCM_U8": 2**-7, "PCM_16": 2**-15, "PCM_24": 2**-23, "PCM_32": 2**-24, "FLOAT": 0, "DOUBLE": 1e-7}


def encode(
    samples: np.ndarray, rate_hz: int = 8000, subtype: str = "PCM_16", kind: str = "WAV", **options: Any
) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate_hz, format=kind, subtype=subtype, **options)
    return buffer.getvalue()


def decode(body: bytes, *, max_audio_s: float = 30) -> np.ndarray:
    return decode_audio(body, MODEL, max_audio_s=max_audio_s)


def sine(rate_hz: int, frequency_hz: float = 440, seconds: float = 0.5) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * frequency_hz * np.arange(round(seconds * rate_hz)) / rate_hz)


def chunk(kind: bytes, content: bytes, size: int | None = None) -> bytes:
    """A chunk of a WAV file, aligned to two bytes, whatever size it claims."""
    claimed = len(content) if size is None else size
    return kind + struct.pack("<I", claimed) + content + b"\0" * (len(content) % 2)


def riff(*chunks: bytes) -> bytes:
    content = b"WAVE" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(content)) + content


def form(rate_hz: int = 8000, channels: int = 1, bits: int = 16, kind: int = 1) -> bytes:
    frame = channels * bits // 8
    return chunk(b"fmt ", struct.pack("<HHIIHH", kind, channels, rate_hz, rate_hz * frame, frame, bits))


WORDS = RANDOM.integers(-(2**15), 2**15, 500, dtype=np.int16)
DATA = WORDS.astype("<i2").tobytes()
SCALED = (WORDS / 2**15).astype(np.float32)


# Sounds at the model's rate


@given(st.lists(st.integers(-(2**15), 2**15 - 1), min_size=1, max_size=300))
def test_a_mono_8_khz_16_bit_sound_passes_sample_for_sample(values: list[int]) -> None:
    words = np.array(values, np.int16)
    found = decode(encode(words))
    np.testing.assert_array_equal(found, words.astype(np.float32) / 2**15)
    assert found.dtype == np.float32


@pytest.mark.parametrize("subtype", SUBTYPES)
@pytest.mark.parametrize("kind", ["WAV", "WAVEX"])
def test_every_sample_format_holds_the_same_sound(subtype: str, kind: str) -> None:
    samples = RANDOM.uniform(-0.99, 0.99, 300).astype(np.float32)
    found = decode(encode(samples, subtype=subtype, kind=kind))
    np.testing.assert_allclose(found, samples, rtol=0, atol=SUBTYPES[subtype])


@given(left=st.integers(-(2**15), 2**15 - 1), right=st.integers(-(2**15), 2**15 - 1))
def test_stereo_is_the_mean_of_both_channels(left: int, right: int) -> None:
    found = decode(encode(np.array([[left, right]] * 3, np.int16)))
    np.testing.assert_allclose(found, [(left + right) / 2**16] * 3, rtol=0, atol=1e-7)


def test_eight_channels_are_averaged_and_nine_refused() -> None:
    samples = RANDOM.uniform(-1, 1, (50, 8)).astype(np.float32)
    np.testing.assert_allclose(decode(encode(samples, subtype="FLOAT")), samples.mean(axis=1), atol=1e-6)
    with pytest.raises(InputError, match="9 channels; at most 8"):
        decode(encode(np.zeros((50, 9), np.int16)))


def test_floats_beyond_full_scale_are_clipped() -> None:
    found = decode(encode(np.array([-7.5, -1, 0.25, 1, 3e38]), subtype="FLOAT"))
    np.testing.assert_array_equal(found, np.array([-1, -1, 0.25, 1, 1], np.float32))


@pytest.mark.parametrize("rate_hz", [8000, 16_000, 44_100])
@pytest.mark.parametrize("channels", [1, 2])
def test_floats_near_the_largest_do_not_overflow(rate_hz: int, channels: int) -> None:
    huge = np.repeat([[3e38], [-3e38]], 100, axis=0).repeat(channels, axis=1)
    found = decode(encode(huge, rate_hz, "FLOAT"))
    assert np.isfinite(found).all()
    assert np.abs(found).max() <= 1


# Resampling


@pytest.mark.parametrize("rate_hz", [8000, 11_025, 16_000, 22_050, 44_100, 48_000, 192_000])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("frequency_hz", [200, 440, 3000])
def test_a_resampled_sine_is_the_analytic_sine(rate_hz: int, channels: int, frequency_hz: int) -> None:
    samples = np.stack([sine(rate_hz, frequency_hz)] * channels, axis=1)
    found, expected = decode(encode(samples, rate_hz)), sine(8000, frequency_hz)
    assert abs(len(found) - len(expected)) <= 1
    middle = slice(400, 3600)
    assert np.corrcoef(found[middle], expected[middle])[0, 1] > 0.9999
    assert np.abs(found[middle] - expected[middle]).max() < 0.002


def test_what_the_models_rate_cannot_hold_is_filtered_out_and_not_folded() -> None:
    found = decode(encode(sine(48_000, 6000), 48_000))  # would fold to 2 kHz
    assert np.abs(found[400:3600]).max() < 0.002


def test_resampling_does_not_overshoot_full_scale() -> None:
    square = np.sign(np.sin(2 * np.pi * 300 * np.arange(8000) / 16_000)) * 0.999
    found = decode(encode(square, 16_000))
    assert np.abs(found).max() == 1  # without the clipping, Gibbs' overshoot of some 9 %


def test_a_sound_too_short_for_one_sample_at_the_models_rate_is_refused() -> None:
    with pytest.raises(InputError, match="too short"):
        decode(encode(np.ones(1, np.int16), 192_000))


# Headers


def test_a_file_made_by_hand_is_read_as_one_made_by_a_library() -> None:
    np.testing.assert_array_equal(decode(riff(form(), chunk(b"data", DATA))), SCALED)


def test_a_streamed_file_of_unknown_size_is_accepted() -> None:
    streamed = riff(form(), chunk(b"data", DATA, size=0xFFFFFFFF))
    streamed = streamed[:4] + b"\xff\xff\xff\xff" + streamed[8:]
    np.testing.assert_array_equal(decode(streamed), SCALED)


@pytest.mark.parametrize("size", [1, 4, 25, 26, 301])
def test_other_chunks_before_and_after_the_data_are_skipped_odd_or_even(size: int) -> None:
    other = chunk(b"LIST", b"INFO"[:size] + b"x" * max(0, size - 4))
    body = riff(other, form(), other, chunk(b"data", DATA), other)
    np.testing.assert_array_equal(decode(body), SCALED)


@pytest.mark.parametrize("lost", [1, 2, 100, 999])
def test_a_truncated_file_is_refused_with_both_sizes(lost: int) -> None:
    body = riff(form(), chunk(b"data", DATA))
    with pytest.raises(
        InputError, match=f"truncated: its data chunk promises 1000 bytes, {1000 - lost} came"
    ):
        decode(body[:-lost])


@given(st.data())
def test_every_shorter_file_is_refused(data: st.DataObject) -> None:
    body = riff(form(), chunk(b"LIST", b"abc"), chunk(b"data", DATA))
    with pytest.raises(InputError):
        decode(body[: data.draw(st.integers(0, len(body) - 1))])


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not a WAV file"),
        (b"This is a text, whatever its name says.", "not a WAV file"),
        (b"RIFF\0\0\0\0AVI LIST", "not a WAV file"),
        (riff(), "no data chunk"),
        (riff(form()), "no data chunk"),
        (riff(form(), chunk(b"LIST", b"abcd", size=999_999)), "no data chunk"),
        (riff(chunk(b"data", DATA)), "not a readable WAV file"),
        (riff(form(kind=0x1234), chunk(b"data", DATA)), "not a readable WAV file"),
        (riff(form(), chunk(b"data", b"")), "empty"),
        (riff(form(), chunk(b"data", b"", size=0xFFFFFFFF)), "empty"),
    ],
)
def test_what_is_no_sound_is_refused_for_its_reason(body: bytes, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        decode(body)


@pytest.mark.parametrize(
    ("kind", "subtype"),
    [("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III"), ("AIFF", "PCM_16"), ("AU", "PCM_16")],
)
def test_other_sound_files_are_refused(kind: str, subtype: str) -> None:
    with pytest.raises(InputError, match="not a WAV file"):
        decode(encode(sine(8000), 8000, subtype, kind))


@pytest.mark.parametrize("subtype", ["ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM", "GSM610"])
def test_compressed_encodings_are_refused(subtype: str) -> None:
    with pytest.raises(InputError, match=f"encoded as {subtype}"):
        decode(encode(sine(8000), 8000, subtype))


# Values and limits


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_a_value_that_is_not_finite_is_refused(value: float, subtype: str) -> None:
    samples = np.zeros(100)
    samples[50] = value
    with pytest.raises(InputError, match="not finite"):
        decode(encode(samples, subtype=subtype))


@pytest.mark.parametrize("rate_hz", [8000, 16_000])
def test_a_sound_may_be_as_long_as_allowed_and_not_longer(rate_hz: int) -> None:
    longest = np.zeros(rate_hz // 2, np.int16)
    assert len(decode(encode(longest, rate_hz), max_audio_s=0.5)) == 4000
    with pytest.raises(InputError, match=r"lasts 1\.0 s; at most 0\.5 s"):
        decode(encode(np.append(longest, longest), rate_hz), max_audio_s=0.5)


@pytest.mark.parametrize("rate_hz", [1, 4000, 7999, 192_001, 384_000])
def test_a_rate_below_the_models_or_above_192_khz_is_refused(rate_hz: int) -> None:
    with pytest.raises(InputError, match=f"{rate_hz} samples a second; 8000 to 192000"):
        decode(encode(np.zeros(100, np.int16), rate_hz))


# Damage

ORIGINALS = [
    encode(RANDOM.uniform(-1, 1, (60, channels)), rate_hz, subtype, kind)
    for subtype in SUBTYPES
    for rate_hz, channels, kind in [(8000, 1, "WAV"), (44_100, 2, "WAV"), (16_000, 2, "WAVEX")]
]


@given(damaged(ORIGINALS, header_bytes=80))
@settings(max_examples=1200)
def test_a_damaged_sound_is_decoded_or_refused_and_nothing_else(body: bytes) -> None:
    try:
        found = decode(body, max_audio_s=1)
    except InputError:
        return
    assert found.dtype == np.float32
    assert found.ndim == 1
    assert 1 <= len(found) <= 8001
    assert np.abs(found).max() <= 1  # false for NaN as well


@given(st.binary(max_size=200), st.booleans())
@settings(max_examples=200)
def test_arbitrary_bytes_are_refused(body: bytes, signature: bool) -> None:
    with pytest.raises(InputError):
        decode((b"RIFF\0\0\0\0WAVE" if signature else b"") + body)
