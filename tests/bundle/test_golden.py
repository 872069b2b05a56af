from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bundle.confidence import softmax
from bundle.errors import GoldenError
from bundle.golden import Golden, check_golden, compute_logits, load_golden
from tests.bundle.damage import damaged

INPUTS = {"x": np.arange(12, dtype=np.float32).reshape(4, 3)}
LOGITS = np.array([[3, 0, 0], [0, 2, 0], [0, 0, 4], [1, 0.5, 0]], np.float32)
GOLDEN = Golden(INPUTS, {"int8": LOGITS, "fp32": LOGITS})


def archive(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{name.replace("_", "."): array for name, array in arrays.items()})
    return buffer.getvalue()


def zipped(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr(name, content)
    return buffer.getvalue()


def plain(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def giving(logits: np.ndarray) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    """A graph that gives these logits for the golden inputs, one row at a time."""

    def run(feeds: dict[str, np.ndarray]) -> np.ndarray:
        assert feeds["x"].shape == (1, 3)
        return logits[[int(feeds["x"][0, 0]) // 3]]

    return run


# The file


@given(
    hnp.arrays(np.uint8, st.tuples(st.just(3), st.integers(1, 4))),
    hnp.arrays(np.float32, (3, 2), elements=st.floats(-10, 10, width=32)),
)
@settings(max_examples=30)
def test_golden_examples_can_be_read_back(pixels: np.ndarray, logits: np.ndarray) -> None:
    golden = Golden({"pixels": pixels, "a.name": pixels[:, 0]}, {"fp32": logits})
    found = load_golden(golden.save())
    assert len(found) == 3
    assert list(found.inputs) == ["pixels", "a.name"]
    assert list(found.logits) == ["fp32"]
    np.testing.assert_array_equal(found.inputs["pixels"], pixels)
    np.testing.assert_array_equal(found.inputs["a.name"], pixels[:, 0])
    np.testing.assert_array_equal(found.logits["fp32"], logits)
    assert found.inputs["pixels"].dtype == np.uint8


HUGE = b"\x93NUMPY\x01\x00" + struct.pack("<H", 118)
HUGE += b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000000,), }".ljust(117) + b"\n"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "cannot be read"),
        (b"garbage", "cannot be read"),
        (b"PK\x03\x04garbage", "cannot be read"),
        (GOLDEN.save()[:-30], "cannot be read"),
        (plain(LOGITS), "cannot be read"),
        (archive(input_x=np.array([{}, []], dtype=object), logits_fp32=LOGITS), "allow_pickle=False"),
        (archive(input_x=np.array(1), logits_fp32=LOGITS), "'input.x' has no dimension of examples"),
        (archive(input_x=LOGITS, logits_fp32=LOGITS.astype(str)), "unknown array 'logits.fp32'"),
        (
            archive(input_x=LOGITS.astype(complex), logits_fp32=LOGITS),
            "no array of booleans, numbers or texts",
        ),
        (zipped("input.x", b"no array"), "no array of booleans, numbers or texts"),
        (zipped("input.x.npy", HUGE), "cannot be read"),
        (zipped("input.x.npy", b"\x93NUMPY\x01\x00\xff\xff" + b" " * 65_535), "cannot be read"),
        (archive(input_x=LOGITS, logits_fp32=LOGITS, surprise=LOGITS), "unknown array 'surprise'"),
        (archive(input_x=LOGITS, logits_fp16=LOGITS), "unknown array 'logits.fp16'"),
        (archive(input_x=LOGITS, logits_fp32=LOGITS[:3]), "one and the same number"),
        (archive(input_x=LOGITS, logits_fp32=LOGITS, logits_int8=LOGITS[:3]), "one and the same number"),
        (archive(input_x=LOGITS, input_y=LOGITS[:3], logits_fp32=LOGITS), "one and the same number"),
        (archive(input_x=LOGITS[:0], logits_fp32=LOGITS[:0]), "one and the same number"),
        (archive(input_x=LOGITS), "needs inputs and logits"),
        (archive(logits_fp32=LOGITS), "needs inputs and logits"),
        (archive(), "needs inputs and logits"),
    ],
)
def test_a_file_that_holds_no_golden_examples_is_refused_for_its_reason(content: bytes, reason: str) -> None:
    with pytest.raises(GoldenError) as caught:
        load_golden(content)
    message = str(caught.value)
    assert message.startswith("golden.npz: ")
    assert reason in message
    assert "\n" not in message


@given(damaged([GOLDEN.save()], header_bytes=10_000))
@settings(max_examples=500)
def test_a_damaged_file_is_read_or_refused_and_nothing_else(content: bytes) -> None:
    try:
        found = load_golden(content)
    except GoldenError:
        return
    assert len(found) >= 1


# The self-test


def test_each_example_is_computed_alone() -> None:
    np.testing.assert_array_equal(compute_logits(giving(LOGITS), INPUTS), LOGITS)


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_a_graph_that_gives_its_golden_logits_passes(precision: str) -> None:
    check_golden(GOLDEN, precision, giving(LOGITS), 2.0)  # type: ignore[arg-type]


@given(error=st.floats(-0.01, 0.01), row=st.integers(0, 3), label=st.integers(0, 2))
def test_an_fp32_logit_may_differ_by_a_thousandth(error: float, row: int, label: int) -> None:
    found = LOGITS.copy()
    found[row, label] += error
    differs = float(np.abs(found - LOGITS).max())
    if differs <= 1e-3:
        check_golden(GOLDEN, "fp32", giving(found), 1.0)
    else:
        with pytest.raises(GoldenError, match=r"^fp32: a golden logit differs by \S+, allowed is 0\.001$"):
            check_golden(GOLDEN, "fp32", giving(found), 1.0)


@given(
    error=st.floats(-0.4, 0.4), row=st.integers(0, 3), label=st.integers(0, 2), temperature=st.floats(0.5, 4)
)
def test_an_int8_probability_may_differ_by_two_hundredths_at_the_graphs_temperature(
    error: float, row: int, label: int, temperature: float
) -> None:
    found = LOGITS.copy()
    found[row, label] += error
    differs = np.abs(softmax(found, temperature) - softmax(LOGITS, temperature)).max()
    if differs <= 0.02:
        check_golden(GOLDEN, "int8", giving(found), temperature)
    else:
        with pytest.raises(
            GoldenError, match=r"^int8: a golden probability differs by \S+, allowed is 0\.02$"
        ):
            check_golden(GOLDEN, "int8", giving(found), temperature)


def test_the_temperature_decides_how_much_an_int8_logit_may_differ() -> None:
    found = LOGITS + np.array([0.2, 0, 0], np.float32)
    check_golden(GOLDEN, "int8", giving(found), 4.0)
    with pytest.raises(GoldenError, match="probability differs"):
        check_golden(GOLDEN, "int8", giving(found), 1.0)


def test_an_int8_label_must_be_the_same_however_near_the_probabilities() -> None:
    close = Golden(INPUTS, {"int8": np.array([[0.001, 0, -9]] * 4, np.float32)})
    found = np.array([[0.001, 0, -9]] * 3 + [[0, 0.001, -9]], np.float32)
    with pytest.raises(GoldenError, match=r"^int8: 1 of 4 golden labels differ$"):
        check_golden(close, "int8", giving(found), 1.0)


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_logits_that_are_not_numbers_never_pass(precision: str) -> None:
    found = LOGITS.copy()
    found[2, 2] = np.nan  # also where argmax finds the right label
    with pytest.raises(GoldenError, match="differs by nan"):
        check_golden(GOLDEN, precision, giving(found), 1.0)  # type: ignore[arg-type]


def test_logits_of_another_shape_are_named() -> None:
    with pytest.raises(GoldenError, match=r"fp32 logits \(4, 3\), the graph gives \(4, 2\)"):
        check_golden(GOLDEN, "fp32", giving(LOGITS[:, :2]), 1.0)


def test_a_precision_without_golden_logits_is_named() -> None:
    with pytest.raises(GoldenError, match=r"^golden\.npz: holds no logits for int8$"):
        check_golden(Golden(INPUTS, {"fp32": LOGITS}), "int8", giving(LOGITS), 1.0)


def test_a_graph_that_cannot_run_the_examples_fails_in_one_line() -> None:
    def run(feeds: dict[str, np.ndarray]) -> np.ndarray:
        raise ValueError("Required inputs\n(['y']) are missing")

    with pytest.raises(GoldenError) as caught:
        check_golden(GOLDEN, "int8", run, 1.0)
    assert str(caught.value) == (
        "int8: the graph cannot run the golden examples: Required inputs (['y']) are missing"
    )
