"""Whatever is drawn, varied or mixed is something that the service would admit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundle.datatypes import Array
from bundle.decoding import Limits
from bundle.manifest import Manifest, TensorSpec
from bundle.media import TextDecoding
from bundle.repository import read_bundle
from bundle.rows import rows_from_bytes
from tests import tiny
from training.mates import (
    draw_item,
    free_axis,
    longest_admitted,
    mix_items,
    passing_patterns,
    steady_patterns,
    vary_item,
)

MAKE = {"image": tiny.make_image_bundle, "audio": tiny.make_audio_bundle}
LENGTH = 50


@pytest.fixture(scope="module", params=MAKE)
def manifest(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return read_bundle(MAKE[request.param](tmp_path_factory.mktemp("models"))).manifest


def check_admitted(manifest: Manifest, item: Array) -> None:
    (row,) = rows_from_bytes(manifest, item.tobytes(), (1, *item.shape), Limits())
    assert np.array_equal(row[manifest.data_inputs[0].name], item)


def extremes(tensor: TensorSpec, seed: int = 0) -> list[Array]:
    random = np.random.default_rng(seed)
    patterns = [*steady_patterns(random), *passing_patterns(random)]
    return [draw_item(tensor, pattern, LENGTH) for pattern in patterns]


def test_extremes_are_admitted_differ_and_reach_both_ends(manifest: Manifest) -> None:
    (tensor,) = manifest.data_inputs
    items = extremes(tensor)
    for item in items:
        check_admitted(manifest, item)
        assert item.shape == ((LENGTH,) if tensor.free_dimensions else tensor.row_shape)
    assert len({item.tobytes() for item in items}) > 20
    assert (min(item.min() for item in items), max(item.max() for item in items)) == tensor.allowed_range


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_variations_are_admitted_and_never_too_long(manifest: Manifest, seed: int) -> None:
    (tensor,) = manifest.data_inputs
    random = np.random.default_rng(seed)
    items = extremes(tensor)
    first = item = items[random.integers(len(items))]
    before = first.copy()
    for _ in range(10):
        item = vary_item(tensor, item, items[random.integers(len(items))], 4 * LENGTH, random)
        check_admitted(manifest, item)
        assert item.shape == tensor.row_shape or len(item) <= 4 * LENGTH
    assert np.array_equal(first, before)


def test_variations_change_every_kind_of_thing(manifest: Manifest) -> None:
    (tensor,) = manifest.data_inputs
    item, other = extremes(tensor)[4:6]
    varied = [vary_item(tensor, item, other, 4 * LENGTH, np.random.default_rng(seed)) for seed in range(50)]
    assert len({array.tobytes() for array in varied}) > 30
    assert (len({array.shape for array in varied}) > 1) == (tensor.free_dimensions == 1)


def test_a_mixture_goes_from_one_item_to_the_other(manifest: Manifest) -> None:
    (tensor,) = manifest.data_inputs
    a, b = extremes(tensor)[4:6]
    assert np.array_equal(mix_items(tensor, a, b, 0), a)
    assert np.array_equal(mix_items(tensor, a, b, 1), b)
    half = mix_items(tensor, a, b, 0.5)
    check_admitted(manifest, half)
    np.testing.assert_allclose(half, (a.astype(float) + b) / 2, atol=0.5)


def test_the_shorter_item_of_a_mixture_is_followed_by_nothing() -> None:
    tensor = TensorSpec(name="samples", datatype="FP32", shape=("batch", "time"), allowed_range=(-1, 1))
    mixed = mix_items(tensor, np.ones(2, np.float32), np.ones(3, np.float32), 0.25)
    assert mixed.tolist() == [1, 1, 0.25]


def test_the_free_axis_is_found_wherever_it_stands() -> None:
    for shape, axis in ((("batch", 3), None), (("batch", "time"), 0), (("batch", 40, "time"), 1)):
        tensor = TensorSpec(name="x", datatype="FP32", shape=shape)
        assert free_axis(tensor) == axis


def test_the_longest_row_is_what_the_service_admits(manifest: Manifest) -> None:
    text = TextDecoding(alphabet="abc", unknown_index=0, max_characters=77)
    assert longest_admitted(manifest.model_copy(update={"decoding": text}), 5) == 77
    expected = 30 * 8000 if manifest.decoding.kind == "audio" else 8 * 5
    assert longest_admitted(manifest, 5) == expected


def test_a_tensor_without_a_range_has_that_of_its_type() -> None:
    for datatype, low, high in (("UINT8", 0, 255), ("INT32", -(2**31), 2**31 - 1)):
        tensor = TensorSpec(name="x", datatype=datatype, shape=("batch", 4))
        random = np.random.default_rng(0)
        lowest, _, highest = (draw_item(tensor, pattern, 1) for pattern in steady_patterns(random)[:3])
        assert (lowest.min(), highest.max()) == (low, high)
