"""The search for the worst batch-mates, on models whose neighbourly behaviour is plain arithmetic."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from bundle.confidence import softmax
from bundle.datatypes import Array
from bundle.manifest import Graph, Quantization
from bundle.predictor import Predictor, create_predictor
from bundle.repository import read_bundle
from tests import tiny
from training.isolation import UNDECIDED, allowed_shift, find_worst_mates

FEW = {"victims": 8, "steps": 20}


def jealous_graph(weight: float = 1.0) -> onnx.ModelProto:
    """The tiny image model, but pixels are divided by the brightest of the whole batch, and 1."""
    model = tiny.image_graph()
    graph = model.graph
    divide = next(node for node in graph.node if node.op_type == "Div")
    divide.input[1] = "brightest"
    largest = helper.make_node("ReduceMax", ["floats"], ["largest"], keepdims=0)
    brightest = helper.make_node("Add", ["largest", "one"], ["brightest"])
    graph.initializer.append(numpy_helper.from_array(np.array(weight, np.float32), "one"))
    for node in (brightest, largest):
        graph.node.insert(1, node)
    return model


def predictor_of(folder: Path, graph: onnx.ModelProto | None = None) -> Predictor:
    bundle = read_bundle(tiny.make_image_bundle(folder))
    if graph is not None:
        bundle = replace(bundle, files={**bundle.files, "model.int8.onnx": graph.SerializeToString()})
    return create_predictor(bundle, "int8")


class Listening(Predictor):
    """Keeps the lengths of all rows that it runs."""

    lengths: ClassVar[set[int]] = set()

    def logits(self, feeds: dict[str, Array]) -> np.ndarray:
        self.lengths.update(feeds["lengths"].tolist())
        return super().logits(feeds)


def dim_images(n: int = 30) -> list[Array]:
    return list(np.random.default_rng(0).integers(0, 100, (n, 4, 4), dtype=np.uint8))


def test_rows_that_do_not_know_of_each_other_are_acquitted(tmp_path: Path) -> None:
    found = find_worst_mates(predictor_of(tmp_path), dim_images(), 8, **FEW)
    assert found.flips == 0
    assert found.shift <= 1e-6


def test_a_graph_that_looks_at_the_whole_batch_is_convicted(tmp_path: Path) -> None:
    predictor = predictor_of(tmp_path, jealous_graph())
    items = dim_images()
    found = find_worst_mates(predictor, items, 8, **FEW)
    # The worst mate is plain to see: a single bright pixel.
    bright = np.full((4, 4), 255, np.uint8)
    worst = 0.0
    for item in items:
        alone, beside = (
            softmax(predictor.run(predictor.rows(company)).logits)[0] for company in ([item], [item, bright])
        )
        worst = max(worst, np.abs(alone - beside).max())
    assert found.shift >= 0.5 * worst > 0.1


def test_a_batch_of_two_is_searched_too(tmp_path: Path) -> None:
    found = find_worst_mates(predictor_of(tmp_path, jealous_graph()), dim_images(), 2, **FEW)
    assert found.shift > 0.1


def test_an_answer_that_becomes_no_number_has_moved_as_far_as_can_be(tmp_path: Path) -> None:
    # Dim pixels divided by (brightest - 255): an infinity, and zero times that, beside a bright one.
    predictor = predictor_of(tmp_path, jealous_graph(-255.0))
    found = find_worst_mates(predictor, [np.zeros((4, 4), np.uint8), *dim_images()], 8, **FEW)
    assert found.shift == 1.0


def test_sounds_of_any_length_are_tried(tmp_path: Path) -> None:
    predictor = Listening(**vars(create_predictor(read_bundle(tiny.make_audio_bundle(tmp_path)), "int8")))
    random = np.random.default_rng(0)
    items = [random.uniform(-1, 1, n).astype(np.float32) for n in (20, 37, 100)]
    found = find_worst_mates(predictor, items, 4, **FEW)
    assert found.flips == 0
    assert found.shift <= 1e-5
    assert {1, 30 * 8000} <= predictor.lengths


def test_equal_seeds_search_alike(tmp_path: Path) -> None:
    predictor = predictor_of(tmp_path, jealous_graph())
    first, again = (find_worst_mates(predictor, dim_images(), 4, seed=3, **FEW) for _ in range(2))
    assert first == again


def test_the_temperature_takes_part(tmp_path: Path) -> None:
    predictor = predictor_of(tmp_path, jealous_graph())
    sharp, flat = (
        find_worst_mates(predictor, dim_images(), 4, temperature, **FEW).shift for temperature in (1.0, 50.0)
    )
    assert flat < sharp / 2


def test_more_steps_find_no_less(tmp_path: Path) -> None:
    predictor = predictor_of(tmp_path, jealous_graph())
    short, long = (find_worst_mates(predictor, dim_images(), 4, victims=8, steps=n) for n in (0, 100))
    assert long.shift >= short.shift
    assert long.batches == short.batches + 200


def test_victims_that_are_made_could_not_flip_within_the_bound() -> None:
    assert UNDECIDED[0] >= 2 * 0.01


@pytest.mark.parametrize(("method", "bound"), [("dynamic", 0.01), ("static_qdq", 1e-5), (None, 1e-5)])
def test_only_dynamic_int8_may_move_visibly(method: str | None, bound: float) -> None:
    quantization = method and Quantization(method=method, per_channel=True, excluded_nodes=())  # type: ignore[arg-type]
    assert allowed_shift(Graph(file="model.onnx", quantization=quantization or None)) == bound
