from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from bundle.datatypes import DTYPES
from bundle.decoding import Limits
from bundle.errors import InputError
from bundle.manifest import Manifest
from bundle.repository import read_bundle
from bundle.rows import collate, row_from_media, row_from_values, rows_from_bytes

LIMITS = Limits()
PIXELS = np.arange(16, dtype=np.uint8).reshape(4, 4)


@pytest.fixture(scope="module")
def image(repository: Path) -> Manifest:
    return read_bundle(repository / "tiny-image" / "1").manifest


@pytest.fixture(scope="module")
def audio(repository: Path) -> Manifest:
    return read_bundle(repository / "tiny-audio" / "1").manifest


def taking(image: Manifest, *inputs: dict[str, Any]) -> Manifest:
    """The manifest of a model that takes other tensors, and no media."""
    document = image.model_dump() | {"inputs": inputs, "decoding": {"kind": "tensor"}}
    return Manifest.model_validate(document)


def one(datatype: str, *row_shape: int | str, **options: Any) -> dict[str, Any]:
    return {"name": "x", "datatype": datatype, "shape": ("batch", *row_shape), **options}


# JSON values


@given(hnp.arrays(np.uint8, (4, 4)))
def test_nested_lists_become_a_row_of_the_models_type(image: Manifest, pixels: np.ndarray) -> None:
    row = row_from_values(image, pixels.tolist(), LIMITS)
    np.testing.assert_array_equal(row["pixels"], pixels)
    assert row["pixels"].dtype == np.uint8


@given(st.lists(st.floats(-1, 1, width=32) | st.integers(-1, 1), min_size=1, max_size=50))
def test_numbers_with_and_without_fractions_become_a_sound(audio: Manifest, values: list[float]) -> None:
    row = row_from_values(audio, values, LIMITS)
    assert list(row) == ["samples"]
    np.testing.assert_array_equal(row["samples"], np.array(values, np.float32))
    assert row["samples"].dtype == np.float32


def filled(value: object) -> list[list[object]]:
    """A 4 x 4 list that is right but for one value."""
    values: list[list[object]] = PIXELS.tolist()
    values[1][2] = value
    return values


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (filled("7"), "expected integers (UINT8), got text"),
        (filled(None), "expected integers (UINT8), got null"),
        (filled({}), "expected integers (UINT8), got an object"),
        (filled(10**30), "holds integers that are too large for any UINT8"),
        (filled(-(10**30)), "holds integers that are too large for any UINT8"),
        (filled(1.5), "expected integers (UINT8), got fractions"),
        (filled(1.0), "expected integers (UINT8), got fractions"),
        (filled(float("nan")), "expected integers (UINT8), got fractions"),
        (filled(True), "got true or false"),
        ([[True] * 4] * 4, "got true or false"),
        (filled(256), "holds values from 0 to 256; 0 to 255 are allowed"),
        (filled(-1), "holds values from -1 to 15; 0 to 255 are allowed"),
        (filled(2**63), "holds integers that are too large for any UINT8"),
        ([[2**63] * 4] * 4, "0 to 255 are allowed"),
        (filled([1]), "got lists nested too deeply"),
        ([[1, 2, 3, 4]] * 3 + [4], "the nested lists have no regular shape"),
        ([[1, 2, 3, 4]] * 3 + [[1, 2, 3]], "the nested lists have no regular shape"),
        ([[1, 2, 3, 4]] * 3, "a row has the shape [3, 4], expected [4, 4]"),
        ([[[1, 2, 3, 4]] * 4], "got lists nested too deeply"),
        ([], "a row has the shape [0], expected [4, 4]"),
        ([[]] * 4, "a row has the shape [4, 0], expected [4, 4]"),
        (7, "a row has the shape [], expected [4, 4]"),
        (None, "got null"),
        ("text", "got text"),
        (True, "got true or false"),
        ({"pixels": 1}, "got an object"),
        (filled("x" * 10_000), "got text"),
    ],
)
def test_values_that_do_not_fit_are_refused_for_their_reason(
    image: Manifest, values: object, reason: str
) -> None:
    with pytest.raises(InputError) as caught:
        row_from_values(image, values, LIMITS)
    assert str(caught.value).startswith("pixels: ")
    assert reason in str(caught.value)


def test_lists_nested_without_end_are_refused(image: Manifest) -> None:
    values: list[Any] = []
    for _ in range(5000):
        values = [values]
    with pytest.raises(InputError, match="nested too deeply"):
        row_from_values(image, values, LIMITS)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_not_finite_is_refused(image: Manifest, audio: Manifest, value: float) -> None:
    with pytest.raises(InputError, match="samples: holds values that are not finite"):
        row_from_values(audio, [0.0, value], LIMITS)
    with pytest.raises(InputError, match="x: holds values that are not finite"):
        row_from_values(taking(image, one("FP32", 2)), [0.0, value], LIMITS)


@pytest.mark.parametrize("value", [1.001, -1.001, 2, 1e300, 10**18])
def test_a_sample_beyond_full_scale_is_refused(audio: Manifest, value: float) -> None:
    with pytest.raises(InputError, match="-1 to 1 are allowed"):
        row_from_values(audio, [0.0, value], LIMITS)


@pytest.mark.parametrize(
    ("datatype", "low", "high"),
    [("UINT8", 0, 255), ("INT32", -(2**31), 2**31 - 1), ("INT64", -(2**63), 2**63 - 1)],
)
def test_integers_are_taken_to_the_ends_of_their_type_and_no_further(
    image: Manifest, datatype: str, low: int, high: int
) -> None:
    manifest = taking(image, one(datatype, 1))
    for value in (low, 0, high):
        found = row_from_values(manifest, [value], LIMITS)["x"]
        assert (found.tolist(), found.dtype) == ([value], DTYPES[datatype])
    for value in (low - 1, high + 1):
        with pytest.raises(InputError):
            row_from_values(manifest, [value], LIMITS)


def test_a_number_that_fp32_cannot_hold_is_refused(image: Manifest) -> None:
    manifest = taking(image, one("FP32", 1))
    assert row_from_values(manifest, [3.4e38], LIMITS)["x"].dtype == np.float32
    for value in (3.5e38, -3.5e38):
        with pytest.raises(InputError, match="are allowed"):
            row_from_values(manifest, [value], LIMITS)


def test_the_allowed_range_includes_its_ends(image: Manifest) -> None:
    manifest = taking(image, one("INT32", 1, allowed_range=(-3, 3)))
    assert [int(row_from_values(manifest, [v], LIMITS)["x"][0]) for v in (-3, 3)] == [-3, 3]
    for value in (-4, 4):
        with pytest.raises(InputError, match="-3 to 3 are allowed"):
            row_from_values(manifest, [value], LIMITS)


def test_bytes_are_checked_where_not_every_byte_is_allowed(image: Manifest) -> None:
    manifest = taking(image, one("UINT8", 2, allowed_range=(1, 200)))
    assert len(rows_from_bytes(manifest, b"\x01\xc8", None, LIMITS)) == 1
    for body in (b"\x00\xc8", b"\x01\xc9"):
        with pytest.raises(InputError, match="1 to 200 are allowed"):
            rows_from_bytes(manifest, body, None, LIMITS)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=20,
)


@given(JSON)
def test_any_json_is_a_row_or_refused_and_nothing_else(audio: Manifest, values: object) -> None:
    try:
        row = row_from_values(audio, values, LIMITS)
    except InputError:
        return
    assert isinstance(values, list)
    np.testing.assert_array_equal(row["samples"], np.array(values, np.float64).astype(np.float32))
    assert not any(isinstance(value, bool) for value in values)


# Bytes


@pytest.mark.parametrize("datatype", sorted(set(DTYPES) - {"BYTES"}))
@given(data=st.data())
def test_bytes_are_read_back_as_the_rows_they_were_made_of(
    image: Manifest, datatype: str, data: st.DataObject
) -> None:
    dtype = DTYPES[datatype]
    largest = min(2.0**100, float(np.finfo(dtype).max)) if dtype.kind == "f" else 0
    width: Any = min(32, dtype.itemsize * 8)
    elements: Any = st.floats(-largest, largest, width=width) if dtype.kind == "f" else None
    if datatype == "BF16":  # the bits of numbers that are finite
        elements = st.integers(0, 0xFFFF).filter(lambda bits: bits & 0x7F80 != 0x7F80)
    shape = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4), st.just(2)))
    tensor = data.draw(hnp.arrays(dtype, shape, elements=elements))
    free = rows_from_bytes(taking(image, one(datatype, "time", 2)), tensor.tobytes(), shape, LIMITS)
    fixed = rows_from_bytes(taking(image, one(datatype, *shape[1:])), tensor.tobytes(), None, LIMITS)
    for rows in (free, fixed):
        np.testing.assert_array_equal(np.stack([row["x"] for row in rows]), tensor)
        assert all(row["x"].dtype == dtype for row in rows)


def test_rows_without_dimensions_are_single_numbers(image: Manifest) -> None:
    manifest = taking(image, one("INT32"))
    rows = rows_from_bytes(manifest, np.array([5, 6], "<i4").tobytes(), None, LIMITS)
    np.testing.assert_array_equal(collate(manifest, rows)["x"], [5, 6])


@pytest.mark.parametrize("size", [0, 1, 15, 17, 31])
def test_bytes_that_are_no_whole_number_of_rows_are_refused(image: Manifest, size: int) -> None:
    with pytest.raises(InputError, match=f"pixels: {size} bytes are no whole number of rows of 16 bytes"):
        rows_from_bytes(image, b"\0" * size, None, LIMITS)


@pytest.mark.parametrize(
    "shape", [(1, 4, 5), (2, 4, 4), (), (0, 4, 4), (1, 0, 4), (-1, -4, 4), (-1, 4, -4), (10**30, 4, 4)]
)
def test_a_shape_that_the_bytes_do_not_fill_is_refused(image: Manifest, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="pixels: 16 bytes do not fit UINT8"):
        rows_from_bytes(image, b"\0" * 16, shape, LIMITS)


@pytest.mark.parametrize("shape", [(1, 16), (1, 2, 8), (1, 4, 4, 1), (16,), (4, 2, 2)])
def test_a_shape_that_is_not_the_models_is_refused(image: Manifest, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"pixels: a row has the shape \[.*\], expected \[4, 4\]"):
        rows_from_bytes(image, b"\0" * 16, shape, LIMITS)


def test_a_free_dimension_needs_a_shape_and_may_not_be_empty(audio: Manifest) -> None:
    with pytest.raises(InputError, match="its shape must be given"):
        rows_from_bytes(audio, b"\0" * 16, None, LIMITS)
    with pytest.raises(InputError, match="do not fit"):
        rows_from_bytes(audio, b"", (1, 0), LIMITS)
    assert len(rows_from_bytes(audio, b"\0" * 16, (2, 2), LIMITS)) == 2


def test_one_bad_row_is_refused_among_good_ones(audio: Manifest) -> None:
    samples = np.zeros((3, 5), np.float32)
    samples[1, 2] = np.nan
    with pytest.raises(InputError, match="not finite"):
        rows_from_bytes(audio, samples.tobytes(), (3, 5), LIMITS)
    samples[1, 2] = 1.5
    with pytest.raises(InputError, match="-1 to 1 are allowed"):
        rows_from_bytes(audio, samples.tobytes(), (3, 5), LIMITS)


def test_a_tensor_of_samples_may_be_as_long_as_a_sound(audio: Manifest) -> None:
    limits = Limits(max_audio_s=0.01)  # 80 samples
    assert len(row_from_values(audio, [0.0] * 80, limits)["samples"]) == 80
    with pytest.raises(InputError, match=r"longer than the allowed 0\.01 s"):
        row_from_values(audio, [0.0] * 81, limits)
    with pytest.raises(InputError, match=r"longer than the allowed 0\.01 s"):
        rows_from_bytes(audio, bytes(81 * 4), (1, 81), limits)


def test_a_model_of_several_inputs_takes_no_single_tensor(image: Manifest) -> None:
    manifest = taking(image, one("FP32", 2), one("FP32", 2) | {"name": "y"})
    with pytest.raises(InputError, match="this model has several inputs"):
        row_from_values(manifest, [1.0, 2.0], LIMITS)
    with pytest.raises(InputError, match="this model has several inputs"):
        rows_from_bytes(manifest, bytes(8), (1, 2), LIMITS)


# Media


def test_an_image_becomes_a_row(image: Manifest) -> None:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "PNG")
    np.testing.assert_array_equal(row_from_media(image, buffer.getvalue(), LIMITS)["pixels"], PIXELS)
    inverted = row_from_media(image, buffer.getvalue(), LIMITS, invert=True)["pixels"]
    np.testing.assert_array_equal(inverted, 255 - PIXELS)
    with pytest.raises(InputError, match="at most 15 are allowed"):
        row_from_media(image, buffer.getvalue(), Limits(max_pixels=15))


def test_media_are_clipped_into_the_allowed_range_and_keep_their_type(
    image: Manifest, audio: Manifest
) -> None:
    sound = np.linspace(-1, 0.99, 50, dtype=np.float32)
    buffer = io.BytesIO()
    soundfile.write(buffer, sound, 8000, format="WAV", subtype="FLOAT")
    tensor = audio.inputs[0].model_copy(update={"allowed_range": (-0.5, 0.25)})
    narrow = audio.model_copy(update={"inputs": (tensor, audio.inputs[1])})
    found = row_from_media(narrow, buffer.getvalue(), LIMITS)["samples"]
    np.testing.assert_array_equal(found, sound.clip(-0.5, 0.25))
    assert found.dtype == np.float32
    with pytest.raises(InputError, match=r"at most 0\.005 s"):
        row_from_media(audio, buffer.getvalue(), Limits(max_audio_s=0.005))


def test_media_of_a_model_without_a_range_are_left_as_they_are(image: Manifest) -> None:
    tensor = one("INT64", "time")
    decoding = {"kind": "text", "alphabet": "abc", "unknown_index": 3, "max_characters": 5}
    manifest = Manifest.model_validate(image.model_dump() | {"inputs": [tensor], "decoding": decoding})
    assert row_from_media(manifest, b"cab?", LIMITS)["x"].tolist() == [2, 0, 1, 3]


# Batches


@given(st.lists(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=20), min_size=1, max_size=6))
def test_sounds_are_padded_with_zeros_and_their_lengths_given(
    audio: Manifest, sounds: list[list[float]]
) -> None:
    rows = [row_from_values(audio, sound, LIMITS) for sound in sounds]
    feeds = collate(audio, rows)
    longest = max(map(len, sounds))
    expected = np.array([sound + [0.0] * (longest - len(sound)) for sound in sounds], np.float32)
    np.testing.assert_array_equal(feeds["samples"], expected)
    np.testing.assert_array_equal(feeds["lengths"], [len(sound) for sound in sounds])
    assert feeds["samples"].dtype == np.float32
    assert feeds["lengths"].dtype == np.int64


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 6), st.just(4), st.just(4))))
def test_images_are_stacked(image: Manifest, pixels: np.ndarray) -> None:
    feeds = collate(image, [{"pixels": row} for row in pixels])
    assert list(feeds) == ["pixels"]
    np.testing.assert_array_equal(feeds["pixels"], pixels)


@pytest.mark.parametrize("axis", [0, 1])
def test_the_free_dimension_may_be_any_of_a_row(image: Manifest, axis: int) -> None:
    shape = ("time", 2) if axis == 0 else (2, "time")
    lengths = {"name": "n", "datatype": "INT64", "shape": ("batch",), "lengths_of": "x"}
    manifest = taking(image, lengths, one("FP32", *shape))
    rows = [{"x": np.ones((n, 2) if axis == 0 else (2, n), np.float32)} for n in (3, 1)]
    feeds = collate(manifest, rows)
    assert feeds["n"].tolist() == [3, 1]
    assert np.moveaxis(feeds["x"], axis + 1, 1)[:, :, 0].tolist() == [[1, 1, 1], [1, 0, 0]]


# Lists that are known to hold numbers alone


@given(
    st.lists(st.lists(st.integers(-2, 258) | st.floats(-1, 300), min_size=0, max_size=5), max_size=5)
    | st.lists(st.integers(0, 255), max_size=5)
    | st.integers(0, 255)
)
def test_numbers_alone_are_read_the_same_way_quickly(image: Manifest, values: object) -> None:
    assert_same_quickly(image, values)


@given(hnp.arrays(np.uint8, (4, 4)))
def test_pixels_are_read_the_same_way_quickly(image: Manifest, pixels: np.ndarray) -> None:
    assert_same_quickly(image, pixels.tolist())


@given(
    st.lists(st.floats(-1.5, 1.5) | st.integers(-(2**63), 2**64 - 1) | st.lists(st.floats(-1, 1)), max_size=9)
)
def test_sounds_are_read_the_same_way_quickly(audio: Manifest, values: list[object]) -> None:
    assert_same_quickly(audio, values)


def assert_same_quickly(manifest: Manifest, values: object) -> None:
    """The quick conversion gives the same row, or the same refusal."""
    outcomes: list[object] = []
    for only_numbers in (False, True):
        try:
            row = row_from_values(manifest, values, LIMITS, only_numbers=only_numbers)
        except InputError as error:
            # 2 may be read as 2.0, and integers beyond 2^53 are rounded.
            outcomes.append(re.sub(r"from [^;]*;", "", str(error)))
        else:
            outcomes.append({name: (array.dtype, array.tolist()) for name, array in row.items()})
    assert outcomes[0] == outcomes[1]
