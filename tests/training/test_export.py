"""Exported graphs: the same numbers as PyTorch, portable, and silent about the machine that made them."""

from __future__ import annotations

import getpass
from pathlib import Path

import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from tests.small import CNN_INPUTS, LSTM_INPUTS, cnn, lstm, pixels, sounds
from training.errors import ExportError
from training.export import check_parity, export_onnx
from training.onnx_model import MAX_IR_VERSION, OPSET, clean

ROOT = Path(__file__).parents[2]
GRAPHS = {"cnn": (cnn, CNN_INPUTS), "lstm": (lstm, LSTM_INPUTS)}
LENGTHS = [(1,), (79,), (80,), (300,), (1, 1), (4000, 1), (799, 800, 801, 5000), (9000, 20, 300, 4000, 1)]


def copy_of(model: onnx.ModelProto) -> onnx.ModelProto:
    return onnx.ModelProto.FromString(model.SerializeToString())


@pytest.mark.parametrize("n", [1, 2, 3, 8, 33])
def test_the_cnn_computes_what_pytorch_computes_at_every_batch_size(n: int) -> None:
    assert check_parity(*cnn(), [(pixels(n, seed=n),)], 1e-4) <= 1e-4


@pytest.mark.parametrize("lengths", LENGTHS)
def test_the_lstm_computes_what_pytorch_computes_at_every_size_and_length(lengths: tuple[int, ...]) -> None:
    assert check_parity(*lstm(), [sounds(*lengths)], 1e-4) <= 1e-4


@pytest.mark.parametrize("name", GRAPHS)
def test_the_largest_difference_over_all_batches_is_returned(name: str) -> None:
    (network, model), _ = GRAPHS[name][0](), None
    batches = [(pixels(n),) for n in (1, 4)] if name == "cnn" else [sounds(800), sounds(4000, 30)]
    alone = [check_parity(network, model, [batch], 1e-4) for batch in batches]
    assert check_parity(network, model, batches, 1e-4) == max(alone) > 0


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_is_portable_and_keeps_its_free_dimensions(name: str) -> None:
    make, shapes = GRAPHS[name]
    _, model = make()
    onnx.checker.check_model(model, full_check=True)
    assert {entry.domain: entry.version for entry in model.opset_import}[""] == OPSET == 20
    assert model.ir_version <= MAX_IR_VERSION == 10
    found = {
        value.name: tuple(dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in model.graph.input
    }
    assert found == shapes
    assert [value.name for value in model.graph.output] == ["logits", "features"]
    assert {value.type.tensor_type.shape.dim[0].dim_param for value in model.graph.output} == {"batch"}


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_is_one_file_that_says_nothing_of_the_machine(name: str) -> None:
    _, model = GRAPHS[name][0]()
    graph = model.graph
    assert not model.metadata_props
    assert not model.doc_string
    for item in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        assert not item.metadata_props
        assert not item.doc_string
    assert all(tensor.data_location != onnx.TensorProto.EXTERNAL for tensor in graph.initializer)
    content = model.SerializeToString()
    for trace in (str(ROOT), str(Path.home()), "site-packages", ".py", "/tmp/", f"/{getpass.getuser()}/"):
        assert trace.encode() not in content


def move_a_weight(model: onnx.ModelProto) -> onnx.ModelProto:
    changed = copy_of(model)
    weight = next(tensor for tensor in changed.graph.initializer if tensor.name == "head.bias")
    values = numpy_helper.to_array(weight).copy()
    values[3] += 1e-3
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    return changed


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_that_computes_something_else_is_refused(name: str) -> None:
    network, model = GRAPHS[name][0]()
    batch = (pixels(2),) if name == "cnn" else sounds(500, 300)
    changed = move_a_weight(model)
    with pytest.raises(ExportError, match=r"for inputs of \(2, .*\) a logit differs by 0\.001; 0\.0001 is"):
        check_parity(network, changed, [batch], 1e-4)
    assert check_parity(network, changed, [batch], 2e-3) == pytest.approx(1e-3, rel=0.1)


def test_a_graph_of_not_a_number_is_refused() -> None:
    network, model = cnn()
    changed = copy_of(model)
    weight = next(tensor for tensor in changed.graph.initializer if tensor.name == "head.bias")
    values = numpy_helper.to_array(weight) * float("nan")
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    with pytest.raises(ExportError, match="differs by nan"):
        check_parity(network, changed, [(pixels(1),)], 1e-4)


class Flat(nn.Module):
    """A network whose graph can be exported for one batch size only."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x * 2, x


def test_a_size_that_the_graph_cannot_run_is_refused() -> None:
    model = export_onnx(Flat(), (torch.rand(2, 3),), {"x": (2, 3)})
    assert check_parity(Flat(), model, [(torch.rand(2, 3),)], 1e-6) == 0
    with pytest.raises(ExportError, match=r"inputs of \(5, 3\) cannot be run: .*invalid dimensions"):
        check_parity(Flat(), model, [(torch.rand(5, 3),)], 1e-6)


def test_logits_of_another_shape_are_refused() -> None:
    class Wider(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return torch.cat([x, x], dim=1), x

    model = export_onnx(Flat(), (torch.rand(2, 3),), {"x": ("batch", 3)})
    with pytest.raises(ExportError, match=r"the ONNX logits are \(4, 3\), not \(4, 6\)"):
        check_parity(Wider(), model, [(torch.rand(4, 3),)], 1)


def test_export_is_of_the_network_in_evaluation_mode() -> None:
    network = nn.Sequential(nn.Dropout(0.9)).train()

    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.inner(x), x

    pair = Pair()
    model = export_onnx(pair, (torch.rand(2, 3),), {"x": ("batch", 3)})
    assert check_parity(pair, model, [(torch.rand(4, 3),)], 1e-6) == 0
    assert not any(node.op_type == "Dropout" for node in model.graph.node)


def model_with(node: onnx.NodeProto, opset: int) -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node], "g", [value("x", onnx.TensorProto.FLOAT, [1])], [value("y", onnx.TensorProto.FLOAT, [1])]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def test_a_model_of_a_newer_opset_is_refused() -> None:
    with pytest.raises(ExportError, match="uses opset 21; bundles promise 20"):
        clean(model_with(helper.make_node("Relu", ["x"], ["y"]), opset=21))


def test_a_model_that_is_no_valid_onnx_is_refused() -> None:
    with pytest.raises(ExportError, match="not valid"):
        clean(model_with(helper.make_node("Relu", ["nothing"], ["y"]), opset=20))


def test_cleaning_removes_what_exporters_leave_behind() -> None:
    model = model_with(helper.make_node("Relu", ["x"], ["y"], doc_string="/home/me/net.py"), opset=20)
    model.doc_string = model.graph.doc_string = model.graph.input[0].doc_string = "/home/me"
    for owner in (model, model.graph, model.graph.node[0], model.graph.output[0]):
        owner.metadata_props.add(key="pkg.torch.onnx.stack_trace", value="/home/me/net.py")
    cleaned = clean(model)
    assert b"/home/me" not in cleaned.SerializeToString()
    assert cleaned.ir_version == 8
