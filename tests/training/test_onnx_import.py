"""Bring your own ONNX: what is found out about a file, what is refused, and how what is published answers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from bundle.bfloat16 import bits_from_floats, floats_from_bits
from bundle.confidence import softmax
from bundle.decoding import Limits
from bundle.errors import GoldenError
from bundle.manifest import CARD_FILE, GOLDEN_FILE
from bundle.predictor import Predictor, load_predictor
from bundle.rows import rows_from_tensors
from bundle.tensor_golden import load_tensor_golden
from tests import onnx_models as made
from tests.conftest import running_app
from training.errors import DataError, GateError, ImportModelError
from training.importing.batching import find_dependence
from training.importing.gates import Bounds
from training.importing.sampling import Sampler
from training.importing.source import runtime_opset
from training.onnx_import import Imported, ImportOptions, import_onnx

LABELS = ("a", "b", "c")
# What is tested is the way, not how fast int8 happens to be on a busy machine.
OPEN = Bounds(
    max_size_ratio=9, max_latency_ratio=1e6, max_accuracy_loss=0.05, min_agreement=0.9, max_error=0.1
)


def take_in(folder: Path, model: onnx.ModelProto | Path, **options: Any) -> Imported:
    path = model if isinstance(model, Path) else made.save(folder, model)
    return import_onnx(ImportOptions(path, "brought", **options), folder / "models")


def refusal(
    folder: Path, model: onnx.ModelProto | Path, kind: type[Exception] = ImportModelError, **options: Any
) -> str:
    with pytest.raises(kind) as caught:
        take_in(folder, model, **options)
    assert not (folder / "models").exists(), "something was written"
    message = str(caught.value)
    assert "\n" not in message
    return message


def load(imported: Imported, precision: Any = None) -> Predictor:
    """Load as the service does, and warm up."""
    predictor = load_predictor(imported.directory, precision=precision)
    assert predictor.fallback is None
    assert predictor.warm_up() > 0
    return predictor


def call(predictor: Predictor, **tensors: Any) -> list[dict[str, np.ndarray]]:
    """Answer one request; return output -> array for each row."""
    manifest = predictor.bundle.manifest
    rows = rows_from_tensors(manifest, {k: np.asarray(v) for k, v in tensors.items()}, Limits())
    return [{o.name: answer.tensor(o.name) for o in manifest.outputs} for answer in predictor.answer(rows)]


def shapes(imported: Imported) -> dict[str, tuple[str, tuple[int | str, ...]]]:
    return {s.name: (s.datatype, s.shape) for s in (*imported.manifest.inputs, *imported.manifest.outputs)}


# What is found out


def test_several_inputs_with_rows_run_together(tmp_path: Path) -> None:
    imported = take_in(tmp_path, made.two_inputs(), max_batch_size=4)
    assert shapes(imported) == {
        "a": ("FP32", ("batch", 4)),
        "b": ("FP32", ("batch", 4)),
        "ids": ("INT64", ("batch",)),
        "total": ("FP32", ("batch", 4)),
        "same_ids": ("INT64", ("batch",)),
    }
    assert imported.manifest.max_batch_size == 4
    assert imported.notes == ()
    random = np.random.default_rng(0)
    a, b = random.normal(size=(2, 3, 4)).astype(np.float32)
    answers = call(load(imported), a=a, b=b, ids=np.array([5, 6, 7]))
    np.testing.assert_array_equal([answer["total"] for answer in answers], a + b)
    assert [answer["same_ids"].item() for answer in answers] == [5, 6, 7]


def test_rows_that_depend_on_each_other_are_found_out_and_run_alone(tmp_path: Path) -> None:
    imported = take_in(tmp_path, made.centred())
    assert not imported.manifest.batched
    assert imported.manifest.max_batch_size == 1
    assert "move each other's 'y'" in imported.notes[0]
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    (answer,) = call(load(imported), x=x)
    np.testing.assert_allclose(answer["y"], x - x.mean(axis=0))


def test_a_dimension_that_is_called_batch_but_is_none_gets_another_name(tmp_path: Path) -> None:
    model = made.centred()
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    assert shapes(take_in(tmp_path, model))["x"] == ("FP32", ("rows", 4))


def test_a_fixed_batch_of_one_stays_as_it_is(tmp_path: Path) -> None:
    imported = take_in(tmp_path, made.same(made.FLOAT, [1, 4]))
    assert shapes(imported)["x"] == ("FP32", (1, 4))
    assert "the first dimension is not free" in imported.notes[0]
    (answer,) = call(load(imported), x=np.ones((1, 4), np.float32))
    assert answer["y"].shape == (1, 4)


@pytest.mark.parametrize(
    ("kind", "datatype", "values"),
    [
        (TensorProto.BOOL, "BOOL", np.array([[True], [False]])),
        (TensorProto.UINT8, "UINT8", np.array([[255], [0]], np.uint8)),
        (TensorProto.UINT64, "UINT64", np.array([[2**64 - 1], [0]], np.uint64)),
        (TensorProto.INT16, "INT16", np.array([[-(2**15)], [7]], np.int16)),
        (TensorProto.FLOAT16, "FP16", np.array([[0.5], [-65504]], np.float16)),
        (TensorProto.DOUBLE, "FP64", np.array([[1e300], [-1]])),
        (TensorProto.STRING, "BYTES", np.array([["grüß"], [""]], object)),
    ],
)
def test_tensors_of_any_type_come_through_as_they_are(
    tmp_path: Path, kind: int, datatype: str, values: np.ndarray
) -> None:
    imported = take_in(tmp_path, made.same(kind, ["N", 1]))
    assert shapes(imported)["y"] == (datatype, ("batch", 1))
    found = [answer["y"] for answer in call(load(imported), x=values)]
    np.testing.assert_array_equal(np.stack(found), values)


def test_bfloat16_is_computed_and_held_as_bits(tmp_path: Path) -> None:
    imported = take_in(tmp_path, made.bfloat16_sum())
    assert shapes(imported)["x"] == ("BF16", ("batch", 2))
    (answer,) = call(load(imported), x=bits_from_floats(np.array([[1.5, -2.25]])))
    np.testing.assert_array_equal(floats_from_bits(answer["y"]), [3, -4.5])


def test_a_scalar_is_a_whole_call(tmp_path: Path) -> None:
    imported = take_in(tmp_path, made.same(made.FLOAT, []))
    assert shapes(imported)["x"] == ("FP32", ())
    (answer,) = call(load(imported), x=np.float32(7))
    assert answer["y"].shape == ()
    assert answer["y"].item() == 7


def test_an_initializer_that_callers_may_override_is_an_optional_input(tmp_path: Path) -> None:
    imported = take_in(tmp_path, made.scaled_by_default())
    assert [(spec.name, spec.optional) for spec in imported.manifest.inputs] == [
        ("x", False),
        ("factor", True),
    ]
    predictor = load(imported)
    x = np.array([1, 2, 3], np.float32)
    assert call(predictor, x=x)[0]["y"].tolist() == [2, 4, 6]
    assert call(predictor, x=x, factor=np.float32(10))[0]["y"].tolist() == [10, 20, 30]
    examples = load_tensor_golden((imported.directory / GOLDEN_FILE).read_bytes()).examples
    assert {"factor" in example.inputs for example in examples} == {True, False}


def test_with_rows_such_an_initializer_becomes_a_constant(tmp_path: Path) -> None:
    model = made.perceptron()
    shape_of = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    model.graph.input.extend(made.value(name, made.FLOAT, dims) for name, dims in shape_of.items())
    imported = take_in(tmp_path, model)
    assert [spec.name for spec in imported.manifest.inputs] == ["x"]
    assert imported.manifest.batched
    assert imported.notes == ("4 of its inputs have defaults and became constants.",)


def test_outputs_may_be_empty_and_of_any_size(tmp_path: Path) -> None:
    predictor = load(take_in(tmp_path, made.positives()))
    assert call(predictor, x=np.array([-1, 2, 3], np.float32))[0]["indices"].tolist() == [[1, 2]]
    assert call(predictor, x=np.array([-1], np.float32))[0]["indices"].shape == (1, 0)
    assert call(predictor, x=np.zeros(0, np.float32))[0]["indices"].shape == (1, 0)


def test_integers_that_are_indices_are_drawn_so_that_the_graph_can_run(tmp_path: Path) -> None:
    imported = take_in(tmp_path, made.mean_of_words())
    assert shapes(imported)["ids"] == ("INT64", ("batch", "time"))
    examples = load_tensor_golden((imported.directory / GOLDEN_FILE).read_bytes()).examples
    assert len({example.inputs["ids"].shape for example in examples}) == 2, "only one size was tried"


def test_the_shape_of_an_output_that_does_not_tell_it_is_inferred(tmp_path: Path) -> None:
    model = made.same(made.FLOAT, ["N", 4])
    model.graph.output[0].type.tensor_type.ClearField("shape")
    assert shapes(take_in(tmp_path, model))["y"] == ("FP32", ("batch", 4))


def test_ranges_limit_what_callers_send_and_what_golden_inputs_hold(tmp_path: Path) -> None:
    imported = take_in(tmp_path, made.two_inputs(), ranges={"": (2, 9), "a": (-1, 1)})
    assert {s.name: s.allowed_range for s in imported.manifest.inputs} == {
        "a": (-1, 1), "b": (2, 9), "ids": (2, 9)
    }  # fmt: skip
    for example in load_tensor_golden((imported.directory / GOLDEN_FILE).read_bytes()).examples:
        assert np.abs(example.inputs["a"]).max() <= 1
        assert example.inputs["ids"].min() >= 2


# What is published


def test_a_bundle_tells_where_it_comes_from(tmp_path: Path) -> None:
    path = made.save(tmp_path, made.two_inputs())
    first, second = take_in(tmp_path, path, description="Adds."), take_in(tmp_path, path, max_batch_size=2)
    assert [imported.manifest.version for imported in (first, second)] == [1, 2]
    provenance = first.manifest.provenance
    assert provenance.recipe == "import"
    assert provenance.weights_commit == f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    assert provenance.config_sha256 != second.manifest.provenance.config_sha256
    card = (first.directory / CARD_FILE).read_text()
    assert "Adds." in card
    assert "| input `ids` | INT64 | [batch] |" in card


def test_nothing_of_the_machine_that_exported_it_is_left(tmp_path: Path) -> None:
    model = made.two_inputs()
    model.doc_string = model.graph.node[0].doc_string = "from /home/somebody"
    model.metadata_props.add(key="path", value="/home/somebody")
    imported = take_in(tmp_path, model)
    assert b"somebody" not in (imported.directory / "model.fp32.onnx").read_bytes()


def test_a_changed_golden_output_is_noticed_when_the_bundle_is_loaded(tmp_path: Path) -> None:
    """The self-test of tensors can fail: the graph is not the one that the golden outputs were made with."""
    imported = take_in(tmp_path, made.scaled_by_default())
    graph = imported.directory / "model.fp32.onnx"
    model = onnx.load(graph)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.array(2.5, np.float32), "factor"))
    graph.write_bytes(model.SerializeToString())
    files = {**imported.manifest.files, graph.name: hashlib.sha256(graph.read_bytes()).hexdigest()}
    changed = imported.manifest.model_copy(update={"files": files})
    (imported.directory / "manifest.json").write_text(changed.model_dump_json())
    with pytest.raises(GoldenError, match="fp32: the golden output 'y' differs by"):
        load_predictor(imported.directory)


# External data


def outside(folder: Path, location: str) -> Path:
    """A model whose weights lie in another file."""
    path = folder / "model.onnx"
    model = made.perceptron()
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    if location != "weights.bin":
        model = onnx.load(path, load_external_data=False)
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                entry.value = location if entry.key == "location" else entry.value
        path.write_bytes(model.SerializeToString())
    return path


def test_tensors_beside_the_model_are_taken_in(tmp_path: Path) -> None:
    path = outside(tmp_path, "weights.bin")
    imported = take_in(tmp_path, path)
    x = made.perceptron_data()["x"][:2]
    (tmp_path / "weights.bin").unlink()
    found = [answer["label"].item() for answer in call(load(imported), x=x)]
    assert found == made.perceptron_logits(x).argmax(axis=1).tolist()
    source = imported.manifest.provenance.weights_commit
    assert source != f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}", (
        "the weights are not in the digest"
    )


def test_tensors_outside_the_folder_of_the_model_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "inside"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(10_000))
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    for location in ("../secret.bin", str(tmp_path / "secret.bin"), "link.bin"):
        assert f"lies in {location!r}, outside the folder" in refusal(folder, outside(folder, location))
    assert "'gone.bin', which is not there" in refusal(folder, outside(folder, "gone.bin"))


# What is refused


def zipmap() -> onnx.ModelProto:
    """As scikit-learn's classifiers are exported by default."""
    maps = helper.make_sequence_type_proto(
        helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(made.FLOAT, []))
    )
    return made.model(
        [made.node("ZipMap", "x", "probabilities", domain="ai.onnx.ml", classlabels_int64s=[0, 1])],
        [made.value("x", made.FLOAT, ["N", 2])],
        [helper.make_value_info("probabilities", maps)],
        domains={"ai.onnx.ml": 3},
    )


def sequence() -> onnx.ModelProto:
    return made.model(
        [made.node("SequenceConstruct", "x", "parts")],
        [made.value("x", made.FLOAT, ["N"])],
        [helper.make_tensor_sequence_value_info("parts", made.FLOAT, None)],
    )


def custom(domain: str) -> onnx.ModelProto:
    return made.model(
        [made.node("Twist", "x", "y", domain=domain)],
        [made.value("x", made.FLOAT, ["N"])],
        [made.value("y", made.FLOAT, ["N"])],
        domains={domain: 1},
    )


def identity(opset: int) -> onnx.ModelProto:
    value = [made.value(name, made.FLOAT, ["N"]) for name in ("x", "y")]
    return made.model([made.node("Identity", "x", "y")], value[:1], value[1:], opset=opset)


def unsized() -> onnx.ModelProto:
    model = made.same(made.FLOAT, [])
    model.graph.input[0].type.tensor_type.ClearField("shape")
    return model


def random_numbers() -> onnx.ModelProto:
    return made.model(
        [made.node("RandomNormalLike", "x", "noise"), made.node("Add", "x noise", "y")],
        [made.value("x", made.FLOAT, [3])],
        [made.value("y", made.FLOAT, [3])],
    )


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (custom("com.acme"), "it uses the custom operator com.acme:Twist"),
        (custom("com.microsoft"), "com.microsoft:Twist(-1) is not a registered function/op"),
        (identity(runtime_opset() + 1), f"knows those up to {runtime_opset()}"),
        (zipmap(), "export it without ZipMap"),
        (sequence(), "its output 'parts' is a sequence, and only tensors can be served"),
        (made.same(TensorProto.COMPLEX64, ["N"]), "its input 'x' is of COMPLEX64"),
        (unsized(), "its input 'x' has no shape"),
        (made.same(made.FLOAT, ["N", 0]), "which has no elements"),
        (random_numbers(), "it does not answer the same twice"),
        (onnx.ModelProto(), "it is no ONNX file, or an empty one"),
    ],
    ids=lambda value: "" if isinstance(value, onnx.ModelProto) else value[:24],
)
def test_what_cannot_be_served_is_refused_for_its_reason(
    tmp_path: Path, model: onnx.ModelProto, reason: str
) -> None:
    message = refusal(tmp_path, model)
    assert message.startswith(f"{tmp_path / 'model.onnx'}: ")
    assert reason in message


def test_the_newest_opset_of_the_runtime_is_taken(tmp_path: Path) -> None:
    assert take_in(tmp_path, identity(runtime_opset())).manifest.batched


def test_files_that_are_no_models_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("hello")
    assert "no ONNX file" in refusal(tmp_path, tmp_path / "text.onnx")
    assert "cannot be read: No such file" in refusal(tmp_path, tmp_path / "gone.onnx")


def test_a_custom_operator_inside_a_branch_is_found(tmp_path: Path) -> None:
    branch = helper.make_graph(
        [made.node("Twist", "x", "twisted", domain="com.acme")],
        "then",
        [],
        [made.value("twisted", made.FLOAT, ["N"])],
    )
    model = made.model(
        [made.node("If", "condition", "y", then_branch=branch, else_branch=branch)],
        [made.value("x", made.FLOAT, ["N"]), made.value("condition", TensorProto.BOOL, [])],
        [made.value("y", made.FLOAT, ["N"])],
        domains={"com.acme": 1},
    )
    assert "com.acme:Twist" in refusal(tmp_path, model)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"ranges": {"z": (0, 1)}}, "it has no input 'z'; there are x"),
        ({"labels": ("a", "b")}, "no output of fractions has the shape [batch, 2]"),
        ({"labels": LABELS, "scores": "label"}, "no output 'label' of fractions"),
        ({"labels": ("a", "a", "b")}, "a label stands twice"),
        ({"method": "static"}, "only with data to judge it by"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path: Path, options: Any, reason: str) -> None:
    assert reason in refusal(tmp_path, made.perceptron(), **options)


def test_labels_need_rows(tmp_path: Path) -> None:
    message = refusal(tmp_path, made.same(made.FLOAT, [1, 3]), labels=LABELS)
    assert "labels need rows in the first dimension" in message


# Classifications


@pytest.mark.parametrize("probabilities", [True, False])
@settings(max_examples=10)
@given(seed=st.integers(0, 1000), rows=st.integers(1, 8))
def test_labels_make_a_classification_whose_probabilities_are_the_models_own(
    labelled: dict[bool, Predictor], probabilities: bool, seed: int, rows: int
) -> None:
    x = np.random.default_rng(seed).normal(size=(rows, made.FEATURES)).astype(np.float32)
    predictor = labelled[probabilities]
    answers = predictor.answer(rows_from_tensors(predictor.bundle.manifest, {"x": x}, Limits()))
    expected = softmax(made.perceptron_logits(x))
    np.testing.assert_allclose([each.confidence.probabilities for each in answers], expected, atol=1e-5)
    assert [answer.tensor("label").item() for answer in answers] == expected.argmax(axis=1).tolist()


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Predictor]:
    """Whether its scores are probabilities -> a classification."""
    found = {}
    for probabilities in (True, False):
        folder = tmp_path_factory.mktemp("labelled")
        imported = take_in(folder, made.perceptron(probabilities=probabilities), labels=LABELS)
        found[probabilities] = load(imported)
    return found


def test_the_outputs_of_the_model_keep_their_names_beside_the_logits(labelled: dict[bool, Predictor]) -> None:
    names = {flag: [spec.name for spec in each.bundle.manifest.outputs] for flag, each in labelled.items()}
    assert names == {True: ["label", "scores", "logits"], False: ["label", "z", "logits"]}


def test_probabilities_of_zero_become_logits_that_are_numbers(labelled: dict[bool, Predictor]) -> None:
    x = np.full((1, made.FEATURES), 1e4, np.float32)
    (answer,) = labelled[True].answer(rows_from_tensors(labelled[True].bundle.manifest, {"x": x}, Limits()))
    assert answer.tensor("scores").min() == 0
    assert np.isfinite(answer.tensor("logits")).all()


def test_an_output_that_already_is_called_logits_is_taken_as_it_is(tmp_path: Path) -> None:
    model = made.perceptron(probabilities=False)
    for part in (*model.graph.node, *model.graph.output):
        if isinstance(part, onnx.NodeProto):
            part.input[:] = ["logits" if name == "z" else name for name in part.input]
            part.output[:] = ["logits" if name == "z" else name for name in part.output]
        elif part.name == "z":
            part.name = "logits"
    imported = take_in(tmp_path, model, labels=LABELS)
    assert [spec.name for spec in imported.manifest.outputs] == ["label", "logits"]


# int8


def write_data(folder: Path, **arrays: np.ndarray) -> Path:
    np.savez(folder / "data.npz", **arrays)
    return folder / "data.npz"


@pytest.mark.parametrize("method", ["static", "weight-only"])
def test_a_classification_is_quantized_and_measured_on_items_that_gave_no_ranges(
    tmp_path: Path, method: Any
) -> None:
    data = write_data(tmp_path, **made.perceptron_data())
    imported = take_in(tmp_path, made.perceptron(), labels=LABELS, data=data, method=method, bounds=OPEN)
    manifest, figures = imported.manifest, imported.figures
    assert figures is not None
    assert figures.n == 100
    assert set(manifest.graphs) == {"int8", "fp32"}
    assert manifest.session.disable_quant_qdq == (method == "weight-only")
    int8, fp32 = (manifest.graphs[p].metrics for p in ("int8", "fp32"))
    assert int8 is not None
    assert fp32 is not None
    assert fp32.accuracy == 1, "the labels are the model's own"
    assert int8.agreement == figures.agreement == int8.accuracy
    assert set(int8.latency_ms) == {1, 8}
    predictor = load(imported, "int8")
    assert predictor.precision == "int8"
    x = made.perceptron_data()["x"]
    rows = rows_from_tensors(manifest, {"x": x}, Limits())
    moved = np.abs(softmax(predictor.run_all(rows).logits) - softmax(made.perceptron_logits(x)))
    assert 0 < moved.max() < 0.3


def test_rows_that_share_an_activation_scale_are_refused_beside_each_other(tmp_path: Path) -> None:
    data = write_data(tmp_path, **made.perceptron_data())
    options = {"labels": LABELS, "data": data, "method": "dynamic", "bounds": OPEN}
    message = refusal(tmp_path, made.perceptron(), GateError, **options)
    assert message.startswith("int8 is not published for batches of 8: ")
    assert "--max-batch-size 1" in message
    alone = take_in(tmp_path, made.perceptron(), max_batch_size=1, **options)
    assert load(alone, "int8").precision == "int8"


def test_a_graph_that_misses_its_gates_is_refused_with_all_figures_unless_fp32_is_enough(
    tmp_path: Path,
) -> None:
    data = write_data(tmp_path, x=made.perceptron_data()["x"])
    never = Bounds(max_size_ratio=9, max_latency_ratio=1e6, max_error=1e-9)
    message = refusal(tmp_path, made.perceptron(), GateError, data=data, method="static", bounds=never)
    for figure in ("size ", "latency ", "error ", "agreement ", "over 100 items"):
        assert figure in message
    imported = take_in(tmp_path, made.perceptron(), data=data, method="static", bounds=never, keep_fp32=True)
    assert set(imported.manifest.graphs) == {"fp32"}
    assert imported.refusal is not None
    assert "at most 1e-09" in imported.refusal
    assert imported.refusal in (imported.directory / CARD_FILE).read_text()
    assert load(imported).precision == "fp32"


def test_tensors_without_rows_are_quantized_too(tmp_path: Path) -> None:
    weights = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    model = made.model(
        [made.node("MatMul", "x w", "y", name="product")],
        [made.value("x", made.FLOAT, [1, 64])],
        [made.value("y", made.FLOAT, [1, 64])],
        {"w": weights},
    )
    x = np.random.default_rng(1).normal(size=(40, 1, 64)).astype(np.float32)
    imported = take_in(tmp_path, model, data=write_data(tmp_path, x=x), method="static", bounds=OPEN)
    assert imported.figures is not None
    assert imported.figures.error is not None
    assert 0 < imported.figures.error < 0.1
    (answer,) = call(load(imported, "int8"), x=x[0])
    assert np.abs(answer["y"] - x[0] @ weights).max() < 2


def test_inputs_with_defaults_become_constants_in_both_graphs(tmp_path: Path) -> None:
    model = made.perceptron()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    model.graph.input.append(made.value("b1", made.FLOAT, [128]))
    x = made.perceptron_data()["x"][:, None]
    imported = take_in(tmp_path, model, data=write_data(tmp_path, x=x), method="static", bounds=OPEN)
    assert [spec.name for spec in imported.manifest.inputs] == ["x"]
    assert "1 of its inputs have defaults and became constants." in imported.notes
    assert load(imported, "int8").precision == "int8"


@pytest.mark.parametrize("method", ["static", "dynamic", "weight-only"])
def test_a_graph_without_weights_cannot_be_quantized(tmp_path: Path, method: Any) -> None:
    data = write_data(tmp_path, x=np.ones((20, 4), np.float32))
    model = made.same(made.FLOAT, ["N", 4])
    message = refusal(tmp_path, model, data=data, method=method, bounds=OPEN)
    assert f"nothing in it can be quantized ({method}); its operators are Identity" in message


@pytest.mark.parametrize("method", ["static", "weight-only"])
def test_an_opset_without_scales_for_each_channel_is_named(tmp_path: Path, method: Any) -> None:
    data = write_data(tmp_path, x=made.perceptron_data()["x"])
    model = made.perceptron(opset=12)
    message = refusal(tmp_path, model, data=data, method=method, bounds=OPEN)
    assert "it uses opset 12; " in message


X = made.perceptron_data()["x"]


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({}, "the input 'x' is missing"),
        ({"x": X, "z": X}, "there is no input 'z'; there are x"),
        ({"x": X[:, :3]}, "a row has the shape [3]"),
        ({"x": X[:5]}, "holds 5 items; at least 16"),
        ({"x": X.astype(str)}, "elements of object are no FP32"),
        ({"x": X.astype(np.float64) * 1e300}, "holds values beyond FP32"),
        ({"x": X, "labels": np.arange(200)}, "labels must be from 0 to 2"),
        ({"x": X, "labels": np.zeros(200)}, "labels must be 200 integers"),
        ({"x": X, "labels": np.zeros(7, int)}, "labels must be 200 integers"),
    ],
)
def test_data_that_do_not_fit_are_refused_for_their_reason(
    tmp_path: Path, arrays: dict[str, np.ndarray], reason: str
) -> None:
    data = write_data(tmp_path, **arrays)
    message = refusal(tmp_path, made.perceptron(), DataError, labels=LABELS, data=data)
    assert reason in message


# Rows


def test_a_row_that_another_one_moves_is_found_by_its_extremes() -> None:
    """The mean of the batch is not there for small rows: only a large neighbour shows it."""
    spec = made_spec()
    sampler = Sampler((spec,))

    def run(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        x = feeds["x"]
        return {"x": x + (np.abs(x).max() > 100)}

    def independent(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"x": feeds["x"] * 2}

    assert "move each other's 'x'" in (find_dependence(run, [spec], sampler) or "")
    assert find_dependence(independent, [spec], sampler) is None


def made_spec(shape: Sequence[int | str] = ("batch", 4)) -> Any:
    from bundle.manifest import TensorSpec

    return TensorSpec(name="x", datatype="FP32", shape=tuple(shape))


# Over HTTP


@pytest.mark.anyio
async def test_an_imported_model_answers_over_http_as_any_other(tmp_path: Path) -> None:
    take_in(tmp_path, made.two_inputs())
    import_onnx(
        ImportOptions(made.save(tmp_path, made.perceptron()), "labelled", labels=LABELS), tmp_path / "models"
    )
    x = made.perceptron_data()["x"][:2]
    body = {
        "inputs": [
            {"name": "a", "datatype": "FP32", "shape": [2, 4], "data": [1.0] * 8},
            {"name": "b", "datatype": "FP32", "shape": [2, 4], "data": [2.0] * 8},
            {"name": "ids", "datatype": "INT64", "shape": [2], "data": [4, 5]},
        ]
    }
    async with running_app(tmp_path / "models") as client:
        answer = await client.post("/v2/models/brought/infer", json=body)
        assert answer.status_code == 200, answer.text
        outputs = {each["name"]: each["data"] for each in answer.json()["outputs"]}
        assert outputs == {"total": [3.0] * 8, "same_ids": [4, 5]}
        sent = [{"name": "x", "datatype": "FP32", "shape": [2, made.FEATURES], "data": x.ravel().tolist()}]
        scores = await client.post("/v2/models/labelled/infer", json={"inputs": sent})
        logits = next(each for each in scores.json()["outputs"] if each["name"] == "logits")
        expected = softmax(made.perceptron_logits(x))
        np.testing.assert_allclose(softmax(np.reshape(logits["data"], (2, 3))), expected, atol=1e-5)
        confidence = await client.post("/v1/models/labelled:confidence", json={"instances": x.tolist()})
        assert confidence.json()["calibration"]["status"] == "missing"
        assert [each["label"] for each in confidence.json()["results"]] == [
            LABELS[i] for i in expected.argmax(axis=1)
        ]
