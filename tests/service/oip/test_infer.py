from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bundle.answer import Answer, Outputs, Run
from bundle.confidence import softmax
from bundle.datatypes import Array, Datatype
from bundle.decoding import Limits
from bundle.errors import InputError
from bundle.manifest import Manifest
from bundle.predictor import Predictor, load_predictor
from service.oip.infer import PROBABILITIES, output_types, read_rows, respond
from service.oip.messages import InferRequest, InferResponse, RequestedOutput
from tests import tiny
from tests.protocol_models import make_protocol_models
from tests.service.calls import pixels

LIMITS = Limits()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    make_protocol_models(folder)
    return folder


@pytest.fixture(scope="module")
def image(repository: Path) -> Predictor:
    return load_predictor(repository / "tiny-image" / "1")


def asking(
    tensors: dict[str, Array], *outputs: RequestedOutput, datatype: Datatype = "UINT8", identifier: str = ""
) -> InferRequest:
    return InferRequest(tensors, dict.fromkeys(tensors, datatype), outputs, identifier)


def ask(predictor: Predictor, request: InferRequest) -> InferResponse:
    manifest = predictor.bundle.manifest
    rows = read_rows(manifest, request, LIMITS)
    size = manifest.max_batch_size
    answers = [a for i in range(0, len(rows), size) for a in predictor.answer(rows[i : i + size])]
    return respond(manifest, request, answers)


def arrays(response: InferResponse) -> dict[str, Array]:
    return {tensor.name: tensor.array for tensor in response.outputs}


@pytest.mark.parametrize("n", [1, 5, 8, 9, 20])
def test_a_classification_gives_its_probabilities_before_what_its_graph_gives(
    image: Predictor, n: int
) -> None:
    images = pixels(n)
    response = ask(image, asking({"pixels": images}, identifier="mine"))
    assert (response.model, response.version, response.id) == ("tiny-image", "1", "mine")
    assert [(each.name, each.datatype) for each in response.outputs] == [
        (PROBABILITIES, "FP32"),
        ("logits", "FP32"),
        ("features", "FP32"),
    ]
    found, logits = arrays(response), tiny.image_logits(images)
    np.testing.assert_allclose(found["logits"], logits, atol=1e-4)
    np.testing.assert_allclose(found[PROBABILITIES], softmax(logits, tiny.TEMPERATURE), atol=1e-5)
    assert {array.shape[0] for array in found.values()} == {n}
    assert {array.dtype for array in found.values()} == {np.dtype("<f4")}


def test_callers_get_the_outputs_that_they_name_in_their_order(image: Predictor) -> None:
    wanted = [RequestedOutput("features"), RequestedOutput("logits", 2), RequestedOutput(PROBABILITIES)]
    response = ask(image, asking({"pixels": pixels(3)}, *wanted))
    assert [(each.name, each.datatype, each.array.shape) for each in response.outputs] == [
        ("features", "FP32", (3, 16)),
        ("logits", "BYTES", (3, 2)),
        (PROBABILITIES, "FP32", (3, 3)),
    ]


def test_the_rows_of_a_request_are_found_again_beside_those_of_others(image: Predictor) -> None:
    mine, others = pixels(2, seed=1), pixels(5, seed=2)
    answers = image.answer(image.rows([*others[:3], *mine, *others[3:]]))[3:5]
    response = respond(image.bundle.manifest, asking({"pixels": mine}), answers)
    np.testing.assert_allclose(arrays(response)["logits"], tiny.image_logits(mine), atol=1e-4)


def test_a_model_without_a_batch_dimension_gives_its_outputs_as_they_are(models: Path) -> None:
    predictor = load_predictor(models / "default" / "1")
    x, y = np.array(2, np.float32), np.array(3, np.float32)
    for tensors, expected in (({"x": x}, 7), ({"x": x, "y": y}, 5)):
        response = ask(predictor, asking(tensors, datatype="FP32"))
        assert arrays(response) == {"z": np.float32(expected)}
        assert arrays(response)["z"].shape == ()


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (asking({"pixels": pixels(1)}, datatype="INT8"), "the input 'pixels' is UINT8, not INT8"),
        (asking({"pixels": pixels(1)}, RequestedOutput("x" * 99)), f"no output '{'x' * 80}'; there are prob"),
        (asking({"pixels": pixels(1)}, *[RequestedOutput("logits")] * 2), "'logits' is asked for twice"),
        (asking({"other": pixels(1)}), "there is no input 'other'"),
    ],
)
def test_what_does_not_fit_the_model_is_refused(
    image: Predictor, request_: InferRequest, reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        read_rows(image.bundle.manifest, request_, LIMITS)


@pytest.mark.parametrize("datatype", ["BYTES", "BOOL"])
def test_what_has_no_order_has_no_largest_elements(models: Path, datatype: Datatype) -> None:
    predictor = load_predictor(models / f"echo-{datatype.lower()}" / "1")
    x = np.array([[["a"]]], object) if datatype == "BYTES" else np.array([[[True]]])
    with pytest.raises(InputError, match=f"'y' is {datatype}: it has no largest elements"):
        ask(predictor, asking({"x": x}, RequestedOutput("y", 1), datatype=datatype))


# Classification


def classify(manifest: Manifest, array: Array, count: int) -> Array:
    run = Run(Outputs({"y": array}), 1.0)
    answers = [Answer(run, i) for i in range(len(array))] if manifest.batched else [Answer(run, None)]
    request = asking({}, RequestedOutput("y", count))
    (output,) = respond(manifest, request, answers).outputs
    assert output.datatype == "BYTES"
    return output.array


@given(rows=hnp.arrays(np.float32, (3, 4), elements=st.integers(-3, 3).map(float)), count=st.integers(1, 6))
def test_the_largest_elements_come_first_and_of_equal_ones_the_first(
    models: Path, rows: np.ndarray, count: int
) -> None:
    manifest = load_predictor(models / "echo-fp32" / "1").bundle.manifest
    found = classify(manifest, rows, count)
    for texts, row in zip(found, rows, strict=True):
        expected = sorted(range(4), key=lambda i: (-row[i], i))[:count]
        assert texts.tolist() == [f"{row[i]:f}:{i}" for i in expected]


@pytest.mark.parametrize(
    ("datatype", "values", "expected"),
    [
        ("UINT64", [1, 2**64 - 1, 2], ["18446744073709551615:1", "2:2"]),
        ("INT8", [-128, 127, -1], ["127:1", "-1:2"]),
        ("FP16", [0.5, -1, 2], ["2.000000:2", "0.500000:0"]),
        ("BF16", [0x3F80, 0xBF80, 0x4000], ["2.000000:2", "1.000000:0"]),
        ("FP64", [np.nan, 1, 2], ["2.000000:2", "1.000000:1"]),
    ],
)
def test_elements_of_every_kind_have_an_order(
    models: Path, datatype: Datatype, values: list[float], expected: list[str]
) -> None:
    manifest = load_predictor(models / f"echo-{datatype.lower()}" / "1").bundle.manifest
    kind = {"BF16": "<u2", "FP16": "<f2", "FP64": "<f8", "INT8": "i1", "UINT64": "<u8"}[datatype]
    assert classify(manifest, np.array([values], kind), 2).tolist() == [expected]


def test_labels_stand_behind_the_index_of_those_that_have_one(image: Predictor) -> None:
    response = ask(
        image, asking({"pixels": pixels(1)}, RequestedOutput("logits", 3), RequestedOutput("features", 16))
    )
    logits, features = (each.array for each in response.outputs)
    order = np.argsort(-tiny.image_logits(pixels(1))[0])
    assert [text.split(":")[1:] for text in logits[0]] == [[str(i), tiny.LABELS[i]] for i in order]
    assert {text.count(":") for text in features[0]} == {1, 2}


def test_without_a_batch_dimension_the_largest_of_all_are_one_row(models: Path) -> None:
    manifest = load_predictor(models / "default" / "1").bundle.manifest
    run = Run(Outputs({"z": np.float32([1, 3, 2])}), 1.0)
    request = asking({}, RequestedOutput("z", 2), datatype="FP32")
    (output,) = respond(manifest, request, [Answer(run, None)]).outputs
    assert output.array.tolist() == ["3.000000:1", "2.000000:2"]


def test_rows_that_ran_apart_and_differ_in_shape_are_refused(models: Path) -> None:
    manifest = load_predictor(models / "echo-fp32" / "1").bundle.manifest
    answers = [Answer(Run(Outputs({"y": np.zeros((1, n))}), 1.0), 0) for n in (2, 3)]
    with pytest.raises(InputError, match="'y' differs in shape from row to row"):
        respond(manifest, asking({}), answers)


def test_only_a_classification_has_probabilities(image: Predictor, models: Path) -> None:
    assert list(output_types(image.bundle.manifest)) == [PROBABILITIES, "logits", "features"]
    assert output_types(load_predictor(models / "two" / "1").bundle.manifest) == {
        "total": "FP32",
        "difference": "FP32",
    }
