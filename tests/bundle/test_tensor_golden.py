"""Golden examples of tensors: their file, and when a graph passes."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundle.errors import GoldenError
from bundle.manifest import TensorSpec
from bundle.tensor_golden import TensorExample, TensorGolden, check_tensor_golden, load_tensor_golden
from tests.bundle.damage import damaged

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


def spec(name: str, datatype: Any = "FP32", shape: tuple[int | str, ...] = ("n",)) -> TensorSpec:
    return TensorSpec(name=name, datatype=datatype, shape=shape)


def example(expected: np.ndarray, precision: Any = "fp32") -> TensorGolden:
    return TensorGolden((TensorExample({"x": np.zeros(2)}, {precision: {"y": expected}}),))


def giving(array: np.ndarray) -> Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]:
    return lambda feeds: {"y": array}


GOLDEN = TensorGolden(
    (
        TensorExample(
            {"a": np.arange(3), "t": np.array(["x", "é"], object)}, {"fp32": {"y": np.zeros((0, 2))}}
        ),
        TensorExample({"a": np.array(7)}, {"fp32": {"y": np.ones((1, 2))}}),
    )
)


@given(st.dictionaries(NAMES, st.integers(0, 9), min_size=1, max_size=4), NAMES)
@settings(max_examples=60)
def test_examples_come_back_whatever_their_tensors_are_called(inputs: dict[str, int], output: str) -> None:
    arrays = {name: np.array(number) for name, number in inputs.items()}
    golden = TensorGolden(
        (TensorExample(arrays, {"int8": {output: np.ones(1)}, "fp32": {output: np.zeros(1)}}),)
    )
    (found,) = load_tensor_golden(golden.save()).examples
    assert {name: array.item() for name, array in found.inputs.items()} == inputs
    assert found.outputs["int8"] == {output: np.ones(1)}
    assert found.outputs["fp32"] == {output: np.zeros(1)}


def test_examples_keep_their_own_shapes_their_texts_and_their_order() -> None:
    first, second = load_tensor_golden(GOLDEN.save()).examples
    assert first.inputs["t"].tolist() == ["x", "é"]
    assert first.outputs["fp32"]["y"].shape == (0, 2)
    assert second.inputs["a"].shape == ()
    assert set(second.inputs) == {"a"}


def archive(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **{name.replace("_", "."): array for name, array in arrays.items()})
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "cannot be read"),
        (archive(), "needs examples"),
        (archive(input_x_0=np.ones(1)), "needs examples"),
        (archive(output_fp32_y_0=np.ones(1), input_x_1=np.ones(1)), "needs examples"),
        (archive(output_fp16_y_0=np.ones(1)), "unknown array 'output.fp16.y.0'"),
        (archive(output_y_0=np.ones(1)), "unknown array"),
        (archive(surprise=np.ones(1)), "unknown array 'surprise'"),
        (archive(input_x_999999999=np.ones(1)), "unknown array"),
        (archive(input_x_0=np.array([{}], object)), "allow_pickle=False"),
    ],
)
def test_a_file_that_holds_no_examples_is_refused_for_its_reason(content: bytes, reason: str) -> None:
    with pytest.raises(GoldenError, match=r"^golden\.npz: ") as caught:
        load_tensor_golden(content)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@given(damaged([GOLDEN.save()], header_bytes=10_000))
@settings(max_examples=200)
def test_a_damaged_file_is_read_or_refused_and_nothing_else(content: bytes) -> None:
    try:
        found = load_tensor_golden(content)
    except GoldenError:
        return
    assert len(found.examples) >= 1


@given(error=st.floats(-0.02, 0.02), largest=st.floats(0, 1000))
def test_an_fp32_number_may_differ_by_a_thousandth_of_the_largest_or_of_one(
    error: float, largest: float
) -> None:
    expected = np.array([largest, 0.25, -largest])
    found = expected + np.array([0, error * max(1, largest), 0])
    differs = abs(found - expected).max() / max(1, largest)
    if differs <= 1e-3:
        check_tensor_golden(example(expected), "fp32", [spec("y", "FP64")], giving(found))
    else:
        with pytest.raises(GoldenError, match=r"^fp32: the golden output 'y' differs by \S+ of its largest"):
            check_tensor_golden(example(expected), "fp32", [spec("y", "FP64")], giving(found))


def test_int8_may_differ_by_a_tenth_and_not_by_more() -> None:
    expected = np.array([10.0, 0.0])
    check_tensor_golden(example(expected, "int8"), "int8", [spec("y")], giving(expected + 0.99))
    with pytest.raises(GoldenError, match=r"^int8: the golden output 'y' differs by 0\.11 of its largest"):
        check_tensor_golden(example(expected, "int8"), "int8", [spec("y")], giving(expected + 1.1))


@pytest.mark.parametrize("precision", ["int8", "fp32"])
@pytest.mark.parametrize(
    ("datatype", "expected", "found"),
    [
        ("INT32", np.array([5, 6]), np.array([5, 7])),
        ("BOOL", np.array([True, False]), np.array([True, True])),
        ("BYTES", np.array(["a", "b"], object), np.array(["a", "B"], object)),
    ],
)
def test_integers_booleans_and_texts_must_be_equal(
    precision: Any, datatype: Any, expected: np.ndarray, found: np.ndarray
) -> None:
    golden = example(expected, precision)
    check_tensor_golden(golden, precision, [spec("y", datatype)], giving(expected.copy()))
    with pytest.raises(GoldenError, match=r"'y' differs in 1 of 2 elements"):
        check_tensor_golden(golden, precision, [spec("y", datatype)], giving(found))


def test_what_is_wrong_with_an_output_is_named() -> None:
    golden = example(np.zeros(2))
    with pytest.raises(GoldenError, match=r"'y' has the shape \[3\], expected \[2\]"):
        check_tensor_golden(golden, "fp32", [spec("y")], giving(np.zeros(3)))
    with pytest.raises(GoldenError, match=r"example 0 holds no 'y' for int8"):
        check_tensor_golden(golden, "int8", [spec("y")], giving(np.zeros(2)))

    def fails(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        raise ValueError("Required inputs\n(['z']) are missing")

    with pytest.raises(GoldenError, match=r"cannot run the golden example 0: Required inputs \(\['z'\]\)"):
        check_tensor_golden(golden, "fp32", [spec("y")], fails)
