import math
import struct
import time
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from bundle.decoding import Limits
from bundle.errors import InputError
from bundle.manifest import Manifest
from bundle.repository import read_bundle
from service.api.calls import Sent
from service.api.inputs import check_media_type, is_quick, parse_shape, read_asked
from service.errors import DeadlineError, UnsupportedMediaError
from tests.service.calls import b64, instances, pixels, png, sound, wav

LIMITS = Limits(max_pixels=1000, max_audio_s=1)


@pytest.fixture(scope="module")
def image(repository: Path) -> Manifest:
    return read_bundle(repository / "tiny-image" / "1").manifest


@pytest.fixture(scope="module")
def audio(repository: Path) -> Manifest:
    return read_bundle(repository / "tiny-audio" / "1").manifest


def read(
    manifest: Manifest,
    body: bytes,
    media_type: str = "application/json",
    *,
    shape: tuple[int, ...] | None = None,
    invert: bool = False,
    waits_s: float = 60,
    max_rows: int = 20,
) -> list[np.ndarray]:
    sent = Sent(body, media_type, shape, None, time.monotonic() + waits_s)
    (name,) = (tensor.name for tensor in manifest.data_inputs)
    limits = replace(LIMITS, max_rows=max_rows)
    return [row[name] for row in read_asked(manifest, sent, limits, invert=invert).rows]


@given(images=arrays.arrays(np.uint8, st.tuples(st.integers(1, 20), st.just(4), st.just(4))))
def test_json_and_raw_tensors_give_back_what_was_sent(repository: Path, images: np.ndarray) -> None:
    manifest = read_bundle(repository / "tiny-image" / "1").manifest
    octets = "application/octet-stream"
    for rows in (
        read(manifest, instances(images)),
        read(manifest, images.tobytes(), octets),
        read(manifest, images.tobytes(), octets, shape=images.shape),
    ):
        np.testing.assert_array_equal(rows, images)
        assert all(row.dtype == np.uint8 for row in rows)


@given(samples=arrays.arrays(np.float32, st.integers(1, 50), elements=st.floats(-1, 1, width=32)))
def test_json_sounds_and_wav_files_give_back_what_was_sent(repository: Path, samples: np.ndarray) -> None:
    manifest = read_bundle(repository / "tiny-audio" / "1").manifest
    for body, media_type in (
        (instances([samples.tolist()]), "application/json"),
        (instances([b64(wav(samples))]), "application/json"),
        (wav(samples), "audio/wav"),
    ):
        (row,) = read(manifest, body, media_type)
        np.testing.assert_array_equal(row, samples)


def test_media_and_numbers_may_stand_side_by_side(image: Manifest) -> None:
    images = pixels(2)
    rows = read(image, instances([b64(png(images[0])), images[1].tolist()]))
    np.testing.assert_array_equal(rows, images)


def test_invert_swaps_dark_and_light_of_media(image: Manifest) -> None:
    one = pixels(1)[0]
    np.testing.assert_array_equal(read(image, png(one), "image/png", invert=True), [255 - one])
    np.testing.assert_array_equal(read(image, instances([b64(png(one))]), invert=True), [255 - one])


def nested(value: Any) -> bytes:
    """One image instance whose first pixel is this value."""
    image = pixels(1)[0].tolist()
    image[0][0] = value
    return instances([image])


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b'{"instances": [[NaN]]}', "not valid JSON"),
        (b'{"instances": [[Infinity]]}', "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"instances": ' + b"[" * 2000 + b"]" * 2000 + b"}", "not valid JSON"),
        (b'{"instances": ' + b"[" * 200 + b"1" + b"]" * 200 + b"}", "instance 0: pixels"),
        (b"[]", 'the member "instances" or "inputs"'),
        (b"null", 'the member "instances" or "inputs"'),
        (b"{}", 'the member "instances" or "inputs"'),
        (b'{"instances": [1], "inputs": [1]}', 'the member "instances" or "inputs"'),
        (b'{"instances": [1], "more": 1}', 'no other but "signature_name"'),
        (b'{"signature_name": "raw"}', 'the member "instances" or "inputs"'),
        (b'{"inputs": [1]}', "input 0: pixels: a row has the shape [], expected [4, 4]"),
        (b'{"inputs": []}', "at least one input"),
        (b'{"inputs": 5}', "must be a list of at least one input"),
        (b'{"inputs": {"pixel": [1]}}', "there is no input 'pixel'; there are pixels"),
        (b'{"inputs": {}}', "the input 'pixels' is missing"),
        (b'{"inputs": {"pixels": {}}}', "must be a list of at least one input"),
        (b'{"instances": [1], "signature_name": "x"}', "no signature 'x'; there are serving_default, raw"),
        (b'{"instances": [1], "signature_name": [{}]}', "no signature that is no text"),
        (b'{"instances": []}', "at least one instance"),
        (b'{"instances": {}}', "must be a list"),
        (b'{"instances": "text"}', "must be a list"),
        (b'{"instances": null}', "must be a list"),
        (b'{"instances": [1]}', "a row has the shape [], expected [4, 4]"),
        (b'{"instances": [[]]}', "shape [0]"),
        (b'{"instances": [[[1, 2], [3]]]}', "no regular shape"),
        (b'{"instances": [null]}', "got null"),
        (b'{"instances": ["text"]}', "got text"),
        (b'{"instances": [[[{}]]]}', "got an object"),
        (instances(pixels(21)), "21 rows; at most 20"),
        (instances(np.zeros((1, 5, 4), int)), "shape [5, 4], expected [4, 4]"),
        (nested(True), "got true or false"),
        (nested(False), "got true or false"),
        (nested("7"), "got text"),
        (nested(None), "got null"),
        (nested(1.5), "got fractions"),
        (nested(-1), "values from -1"),
        (nested(256), "to 256; 0 to 255 are allowed"),
        (nested(2**64), "got fractions"),
        (nested(2**63), "too large"),
        (nested(1).replace(b"[[1,", b"[[1e999,", 1), "not valid JSON"),
        (b'{"instances": [{}]}', "the input 'pixels' is missing"),
        (b'{"instances": [{"pixels": [1]}]}', "instance 0: pixels: a row has the shape [1]"),
        (b'{"instances": [{"pixels": {"b46": ""}}]}', 'must be {"b64": "…"}'),
        (b'{"instances": [{"b64": 1}]}', 'must be {"b64": "…"}'),
        (b'{"instances": [{"b64": "", "x": 1}]}', "there is no input 'b64'; there are pixels"),
        (b'{"instances": [{"b64": true}]}', 'must be {"b64": "…"}'),
        (b'{"instances": [{"b64": "*"}]}', "b64 is not valid base64"),
        (b'{"instances": [{"b64": "YQ"}]}', "b64 is not valid base64"),
        ('{"instances": [{"b64": "é"}]}'.encode(), "b64 is not valid base64"),
        (b'{"instances": [{"b64": ""}]}', "not a PNG or JPEG"),
        (instances([pixels(1)[0].tolist(), b64(b"text")]), "instance 1: the body is not a PNG or JPEG"),
    ],
    ids=lambda value: value[:50] if isinstance(value, bytes) else None,
)
def test_json_that_cannot_be_used_is_refused_with_its_reason(
    image: Manifest, body: bytes, words: str
) -> None:
    with pytest.raises(InputError) as refused:
        read(image, body)
    assert words in str(refused.value)


def test_numbers_beyond_the_type_of_the_model_are_refused(audio: Manifest) -> None:
    for value in ("1e39", "1.01", "-1.01", "1e308"):
        with pytest.raises(InputError, match="are allowed"):
            read(audio, f'{{"instances": [[0, {value}]]}}'.encode())


def test_a_long_text_among_many_numbers_takes_no_memory(image: Manifest) -> None:
    """Numpy would make room for the text at the place of every number: here, four terabytes."""
    body = b'{"instances": [[' + b"1," * 1_000_000 + b'"' + b"x" * 1_000_000 + b'"]]}'
    with pytest.raises(InputError, match="got text"):
        read(image, body)


@pytest.mark.parametrize(
    ("body", "shape", "words"),
    [
        (b"", None, "0 bytes are no whole number of rows of 16 bytes"),
        (bytes(17), None, "17 bytes are no whole number"),
        (bytes(17), (1, 4, 4), "17 bytes do not fit UINT8 [1, 4, 4]"),
        (bytes(16), (2, 4, 4), "do not fit"),
        (bytes(16), (4, 4), "shape [4], expected [4, 4]"),
        (bytes(16), (1, 2, 8), "shape [2, 8], expected [4, 4]"),
        (bytes(16), (1, 4, 4, 1), "shape [4, 4, 1]"),
        (b"", (0, 4, 4), "0 bytes do not fit"),
        (bytes(16), (999_999_999,) * 8, "do not fit"),
        (bytes(16 * 21), None, "21 rows; at most 20"),
    ],
)
def test_a_raw_tensor_that_does_not_fit_is_refused(
    image: Manifest, body: bytes, shape: tuple[int, ...] | None, words: str
) -> None:
    with pytest.raises(InputError) as refused:
        read(image, body, "application/octet-stream", shape=shape)
    assert words in str(refused.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_raw_tensor_with_values_that_are_not_finite_is_refused(audio: Manifest, value: float) -> None:
    body = np.array([[0, value]], "<f4").tobytes()
    with pytest.raises(InputError, match="not finite"):
        read(audio, body, "application/octet-stream", shape=(1, 2))


def test_a_raw_tensor_with_a_free_dimension_needs_its_shape(audio: Manifest) -> None:
    samples = np.stack([sound(), sound(seed=8)])
    with pytest.raises(InputError, match="its shape must be given"):
        read(audio, samples.tobytes(), "application/octet-stream")
    rows = read(audio, samples.tobytes(), "application/octet-stream", shape=(2, 50))
    np.testing.assert_array_equal(rows, samples)


def test_invert_is_refused_for_tensors_and_for_sounds(image: Manifest, audio: Manifest) -> None:
    for manifest, body, media_type in (
        (image, instances(pixels(1)), "application/json"),
        (image, bytes(16), "application/octet-stream"),
        (audio, wav(sound()), "audio/wav"),
        (audio, instances([b64(wav(sound()))]), "application/json"),
    ):
        with pytest.raises(InputError, match="invert is for"):
            read(manifest, body, media_type, invert=True)


def test_decoding_stops_when_nobody_waits_any_more(image: Manifest) -> None:
    with pytest.raises(DeadlineError, match="could not be decoded in time"):
        read(image, instances(pixels(2)), waits_s=-1)


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png_of(width: int, height: int, *extra: bytes) -> bytes:
    """A PNG of one colour, with more chunks behind its header."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes((width + 1) * height), 9))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + pixels + chunk(b"IEND", b"")


LARGE_HEADER = chunk(b"IHDR", struct.pack(">IIBBBBB", 3900, 3900, 8, 0, 0, 0, 0))
LARGE_TEXT = zlib.compress(bytes(900_000), 9)


@pytest.mark.parametrize(
    ("body", "media_type", "expected"),
    [
        (png(pixels(1)[0]), "image/png", True),
        (png_of(28, 28), "image/png", True),
        (png_of(256, 256), "image/png", True),
        (png_of(257, 256), "image/png", False),
        (png_of(1, 1 << 30)[:60], "image/png", False),
        (png_of(4, 4).ljust(64 * 1024, b"\0"), "image/png", True),
        (png_of(4, 4).ljust(64 * 1024 + 1, b"\0"), "image/png", False),
        (b"", "image/png", False),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "image/png", False),
        (b"I am a text that is long enough to be one", "image/png", False),
        # What the first header does not tell.
        (png_of(4, 4, LARGE_HEADER), "image/png", False),
        (png_of(4, 4, chunk(b"zTXt", b"k\0\0" + LARGE_TEXT) * 50), "image/png", False),
        (png_of(4, 4, chunk(b"iTXt", b"k\0\1\0\0\0" + LARGE_TEXT)), "image/png", False),
        (png_of(4, 4, chunk(b"iCCP", b"k\0\0" + LARGE_TEXT)), "image/png", False),
        (b"\xff\xd8\xff\xe0\0\x20JFIF\0\x01IHDR\0\0\0\x04\0\0\0\x04", "image/png", False),
        (png_of(4, 4), "image/jpeg", False),
        (wav(sound(4000)), "audio/wav", True),
        (wav(sound(4000)), "audio/x-wav", True),
        (wav(sound(4080)), "audio/wav", False),
        (bytes(64 * 1024), "application/octet-stream", True),
        (bytes(64 * 1024 + 1), "application/octet-stream", False),
        (instances(pixels(3)), "application/json", True),
        (instances(pixels(3)).ljust(64 * 1024 + 1), "application/json", False),
        (instances([b64(png(pixels(1)[0]))]), "application/json", False),
        (b'{"instances": [{"b\\u0036\\u0034": ""}]}', "application/json", False),
        (b'{"signature_name": "raw", "instances": [[1]]}', "application/json", True),
        (b"--x", "multipart/form-data", False),
        (b"text", "text/plain", False),
    ],
)
def test_only_what_is_read_in_a_moment_is_quick(body: bytes, media_type: str, expected: bool) -> None:
    assert is_quick(Sent(body, media_type, None, None, math.inf)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [(None, None), ("1,4,4", (1, 4, 4)), (" 2 , 8000", (2, 8000)), ("7", (7,)), ("0,4", (0, 4))],
)
def test_a_shape_is_parsed(text: str | None, expected: tuple[int, ...] | None) -> None:
    assert parse_shape(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        " " * 200 + "1",
        "",
        ",",
        "1,",
        "1;4",
        "-1,4",
        "1.0",
        "a",
        "²",
        "1,4,4 x",
        "9999999999",
        ",".join("1" * 9),
        "1_0",
    ],
)
def test_a_shape_that_is_no_list_of_integers_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="X-Tensor-Shape must be"):
        parse_shape(text)


def test_media_types_are_those_of_the_models_decoding(image: Manifest, audio: Manifest) -> None:
    for good in ("application/json", "image/png", "image/jpeg", "application/octet-stream"):
        check_media_type(image, good)
    for good in ("audio/wav", "audio/x-wav", "audio/wave", "audio/vnd.wave"):
        check_media_type(audio, good)
    for manifest, bad in ((image, "audio/wav"), (audio, "image/png"), (image, "text/plain")):
        with pytest.raises(UnsupportedMediaError, match=f"does not take the content type '{bad}'"):
            check_media_type(manifest, bad)
    with pytest.raises(
        UnsupportedMediaError, match="a body without a content type; it takes application/json"
    ):
        check_media_type(image, "")
