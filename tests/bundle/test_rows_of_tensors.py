"""Rows of the tensors of one request: several inputs, lengths, models without a batch dimension."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle.bfloat16 import bits_from_floats
from bundle.datatypes import DTYPES, Datatype
from bundle.decoding import Limits
from bundle.errors import InputError
from bundle.manifest import Manifest
from bundle.repository import read_bundle
from bundle.rows import bucket_of, collate, rows_from_tensors

LIMITS = Limits(max_rows=5)


@pytest.fixture(scope="module")
def image(repository: Path) -> Manifest:
    return read_bundle(repository / "tiny-image" / "1").manifest


@pytest.fixture(scope="module")
def audio(repository: Path) -> Manifest:
    return read_bundle(repository / "tiny-audio" / "1").manifest


def taking(image: Manifest, *inputs: dict[str, Any], batched: bool = True) -> Manifest:
    """The manifest of a model of which nothing is known but its tensors."""
    changes: dict[str, Any] = {"task": "tensors", "inputs": inputs, "decoding": {"kind": "tensor"}}
    if not batched:
        changes |= {"outputs": [spec("y")], "max_batch_size": 1}
    return Manifest.model_validate(image.model_dump() | changes)


def spec(name: str, *shape: int | str, datatype: Datatype = "FP32", **more: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, **more}


@pytest.fixture(scope="module")
def two(image: Manifest) -> Manifest:
    return taking(image, spec("a", "batch", 2), spec("b", "batch", datatype="INT64"))


@pytest.fixture(scope="module")
def sounds(image: Manifest) -> Manifest:
    """Rows of differing lengths beside an input of a free size of its own."""
    return taking(
        image,
        spec("samples", "batch", 2, "time"),
        spec("n", "batch", datatype="INT64", lengths_of="samples"),
        spec("other", "batch", "k"),
    )


@given(n=st.integers(1, 5))
def test_inputs_are_taken_apart_row_by_row_and_put_together_again(two: Manifest, n: int) -> None:
    a, b = np.arange(2 * n, dtype=np.float32).reshape(n, 2), np.arange(n)
    rows = rows_from_tensors(two, {"b": b, "a": a}, LIMITS)
    assert [set(row) for row in rows] == [{"a", "b"}] * n
    feeds = collate(two, rows)
    np.testing.assert_array_equal(feeds["a"], a)
    np.testing.assert_array_equal(feeds["b"], b)
    assert {name: array.dtype for name, array in feeds.items()} == {"a": a.dtype, "b": b.dtype}


@pytest.mark.parametrize("datatype", sorted(DTYPES))
def test_an_element_a_row_of_any_type_stays_an_array(image: Manifest, datatype: Datatype) -> None:
    manifest = taking(image, spec("x", "batch", datatype=datatype))
    x = np.full(3, "text" if datatype == "BYTES" else 1, DTYPES[datatype])
    rows = rows_from_tensors(manifest, {"x": x}, LIMITS)
    assert [(type(row["x"]), row["x"].shape, row["x"].size) for row in rows] == [(np.ndarray, (), 1)] * 3
    found = collate(manifest, rows)["x"]
    assert found.dtype == x.dtype
    np.testing.assert_array_equal(found, x)


@given(lengths=st.lists(st.integers(1, 4), min_size=1, max_size=5))
def test_a_row_is_as_long_as_its_length_says(sounds: Manifest, lengths: list[int]) -> None:
    n = len(lengths)
    samples = np.arange(n * 8, dtype=np.float32).reshape(n, 2, 4)
    tensors = {"samples": samples, "n": np.array(lengths), "other": np.zeros((n, 3), np.float32)}
    rows = rows_from_tensors(sounds, tensors, LIMITS)
    for row, sample, length in zip(rows, samples, lengths, strict=True):
        np.testing.assert_array_equal(row["samples"], sample[:, :length])
        assert set(row) == {"samples", "other"}
    feeds = collate(sounds, rows)
    assert feeds["n"].tolist() == lengths
    inside = np.arange(max(lengths)) < np.array(lengths)[:, None]
    np.testing.assert_array_equal(feeds["samples"], samples[:, :, : max(lengths)] * inside[:, None])


def test_without_lengths_a_row_is_whole(sounds: Manifest) -> None:
    tensors = {"samples": np.zeros((2, 2, 7), np.float32), "other": np.zeros((2, 1), np.float32)}
    assert collate(sounds, rows_from_tensors(sounds, tensors, LIMITS))["n"].tolist() == [7, 7]


def test_only_rows_that_can_be_stacked_share_a_bucket(sounds: Manifest) -> None:
    def bucket(time: int, k: int) -> object:
        row = {"samples": np.zeros((2, time), np.float32), "other": np.zeros(k, np.float32)}
        return bucket_of(sounds, row)

    assert bucket(100, 3) == bucket(101, 3)  # the shorter one is padded
    assert bucket(100, 3) != bucket(200, 3)
    assert bucket(100, 3) != bucket(100, 4)


def test_rows_of_a_classification_without_lengths_share_a_bucket_only_in_one_shape(image: Manifest) -> None:
    inputs = [spec("pixels", "batch", 2, "width")]
    manifest = Manifest.model_validate(
        image.model_dump() | {"inputs": inputs, "decoding": {"kind": "tensor"}}
    )
    assert manifest.task == "classification"

    def bucket(width: int) -> object:
        return bucket_of(manifest, {"pixels": np.zeros((2, width), np.float32)})

    assert bucket(9) == bucket(9)
    assert bucket(9) != bucket(10)  # nothing says where a shorter one would end


def test_a_model_without_a_batch_dimension_takes_tensors_as_they_are(image: Manifest) -> None:
    manifest = taking(image, spec("x"), spec("y", "n", optional=True), batched=False)
    x = np.array(1, np.float32)
    for tensors in ({"x": x}, {"x": x, "y": np.zeros(0, np.float32)}):
        (row,) = rows_from_tensors(manifest, tensors, LIMITS)
        assert row.keys() == tensors.keys()
        assert collate(manifest, [row]).keys() == tensors.keys()


def test_a_tensor_that_begins_at_an_odd_byte_is_moved_where_it_is_not_copied_anyway(image: Manifest) -> None:
    manifest = taking(image, spec("x", 3), batched=False)
    x = np.frombuffer(memoryview(bytes(1) + np.float32([1, 2, 3]).tobytes())[1:], np.float32)
    assert not x.flags.aligned
    fed = collate(manifest, rows_from_tensors(manifest, {"x": x}, LIMITS))["x"]
    assert fed.flags.aligned
    assert fed.tolist() == [1, 2, 3]


F2 = np.zeros((2, 2), np.float32)


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({"a": F2}, "the input 'b' is missing"),
        ({"a": F2, "b": np.zeros(2, int), "c": F2}, "there is no input 'c'; there are a, b"),
        ({"a": F2, "x" * 500: F2}, f"there is no input '{'x' * 80}';"),
        ({"a": F2, "b": np.zeros(3, int)}, "differ in their number of rows: {'a': 2, 'b': 3}"),
        ({"a": F2, "b": np.zeros((2, 1), int)}, r"b: a row has the shape \[1\], expected \[\]"),
        ({"a": F2, "b": np.array(1)}, "b: needs one row or more"),
        ({"a": F2[:0], "b": np.zeros(0, int)}, "a: needs one row or more"),
        ({"a": np.zeros((2, 3), np.float32), "b": np.zeros(2, int)}, r"a row has the shape \[3\]"),
        ({"a": np.zeros((6, 2), np.float32), "b": np.zeros(6, int)}, "has 6 rows; at most 5"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_for_their_reason(
    two: Manifest, tensors: dict[str, np.ndarray], reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        rows_from_tensors(two, tensors, LIMITS)


@pytest.mark.parametrize("length", [0, -1, 5])
def test_a_length_beyond_its_row_is_refused(audio: Manifest, length: int) -> None:
    tensors = {"samples": np.zeros((2, 4), np.float32), "lengths": np.array([4, length])}
    with pytest.raises(InputError, match=f"a length of {length} is not within 1 to 4"):
        rows_from_tensors(audio, tensors, LIMITS)


def test_lengths_alone_are_no_input(audio: Manifest) -> None:
    with pytest.raises(InputError, match="the input 'samples' is missing"):
        rows_from_tensors(audio, {"lengths": np.array([1])}, LIMITS)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1.5])
def test_numbers_are_checked_where_their_range_is_known(
    audio: Manifest, image: Manifest, value: float
) -> None:
    x = np.array([[0, value]], np.float32)
    with pytest.raises(InputError, match=r"not finite|are allowed"):
        rows_from_tensors(audio, {"samples": x}, LIMITS)
    free = taking(image, spec("x", "batch", 2))
    np.testing.assert_array_equal(rows_from_tensors(free, {"x": x}, LIMITS)[0]["x"], x[0])


def test_the_range_of_bfloat16_is_that_of_its_numbers_and_not_of_its_bits(image: Manifest) -> None:
    manifest = taking(image, spec("x", "batch", 2, datatype="BF16", allowed_range=(-1, 1)))
    assert len(rows_from_tensors(manifest, {"x": bits_from_floats(np.float32([[-1, 1]]))}, LIMITS)) == 1
    with pytest.raises(InputError, match=r"holds values from 0.0 to 1.5; -1 to 1 are allowed"):
        rows_from_tensors(manifest, {"x": bits_from_floats(np.float32([[0, 1.5]]))}, LIMITS)
