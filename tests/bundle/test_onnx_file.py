from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from bundle.errors import GraphError
from bundle.onnx_file import check_self_contained
from tests import tiny
from tests.bundle.damage import damaged

TINY = [tiny.image_graph().SerializeToString(), tiny.audio_graph().SerializeToString()]


def tensor(outside: bool, name: str = "weights") -> TensorProto:
    """A tensor that lies in the model, or in another file."""
    made = numpy_helper.from_array(np.arange(2, dtype=np.int64), name)
    if outside:
        made.ClearField("raw_data")
        made.data_location = TensorProto.EXTERNAL
        for key, value in (("offset", "0"), ("location", "../secret.bin"), ("length", "16")):
            made.external_data.add(key=key, value=value)
    return made


def sparse(outside: bool) -> onnx.SparseTensorProto:
    return helper.make_sparse_tensor(tensor(outside), tensor(False, "indices"), [9])


def graph(*nodes: onnx.NodeProto, **options: list[TensorProto]) -> onnx.GraphProto:
    return helper.make_graph(list(nodes), "g", [], [], **options)


def node(**attributes: object) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["y"], **attributes)


def with_function(outside: bool, default: bool) -> onnx.ModelProto:
    model = helper.make_model(graph())
    function = model.functions.add(name="f", domain="d")
    if default:
        function.attribute_proto.append(helper.make_attribute("value", tensor(outside)))
    else:
        function.node.append(node(value=tensor(outside)))
    return model


def with_training(outside: bool, field: str) -> onnx.ModelProto:
    model = helper.make_model(graph())
    getattr(model.training_info.add(), field).CopyFrom(graph(initializer=[tensor(outside)]))
    return model


def with_sparse_indices(outside: bool) -> onnx.ModelProto:
    indices = helper.make_sparse_tensor(tensor(False), tensor(outside, "indices"), [9])
    return helper.make_model(helper.make_graph([], "g", [], [], sparse_initializer=[indices]))


# Every place of an ONNX model where a tensor may stand.
PLACES: dict[str, Callable[[bool], onnx.ModelProto]] = {
    "initializer": lambda outside: helper.make_model(graph(initializer=[tensor(False), tensor(outside)])),
    "sparse initializer": lambda outside: helper.make_model(
        helper.make_graph([], "g", [], [], sparse_initializer=[sparse(outside)])
    ),
    "indices of a sparse initializer": with_sparse_indices,
    "attribute": lambda outside: helper.make_model(graph(node(), node(value=tensor(outside)))),
    "attribute that is a list": lambda outside: helper.make_model(
        graph(node(values=[tensor(False), tensor(outside)]))
    ),
    "sparse attribute": lambda outside: helper.make_model(graph(node(value=sparse(outside)))),
    "sparse attribute that is a list": lambda outside: helper.make_model(
        graph(node(values=[sparse(outside)]))
    ),
    "subgraph": lambda outside: helper.make_model(graph(node(body=graph(initializer=[tensor(outside)])))),
    "attribute in a subgraph of a subgraph": lambda outside: helper.make_model(
        graph(node(body=graph(node(then=graph(node(value=tensor(outside)))))))
    ),
    "list of subgraphs": lambda outside: helper.make_model(
        graph(node(bodies=[graph(), graph(initializer=[tensor(outside)])]))
    ),
    "function": lambda outside: with_function(outside, default=False),
    "default of a function's attribute": lambda outside: with_function(outside, default=True),
    "initialization for training": lambda outside: with_training(outside, "initialization"),
    "algorithm for training": lambda outside: with_training(outside, "algorithm"),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_tensor_outside_is_found_wherever_it_stands(place: str) -> None:
    check_self_contained(PLACES[place](False).SerializeToString())
    with pytest.raises(GraphError, match=r"^it keeps tensors outside itself, in '\.\./secret\.bin'$"):
        check_self_contained(PLACES[place](True).SerializeToString())


@pytest.mark.parametrize("model", TINY, ids=["image", "audio"])
def test_a_whole_model_passes(model: bytes) -> None:
    check_self_contained(model)


def test_names_that_sound_like_a_location_are_none() -> None:
    model = helper.make_model(graph(initializer=[tensor(False, "location")]), doc_string="location")
    model.metadata_props.add(key="location", value="../secret.bin")
    check_self_contained(model.SerializeToString())


def varint(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def field(number: int, content: bytes, above: int = 0) -> bytes:
    """A field of bytes; `above` sets bits of its tag that C++ parsers drop."""
    return varint(number << 3 | 2 | above) + varint(len(content)) + content


@pytest.mark.parametrize("above", [0, 1 << 32, 1 << 34])
@pytest.mark.parametrize("level", [0, 1, 2, 3, 4])
def test_a_tag_with_bits_that_other_parsers_drop_hides_nothing(above: int, level: int) -> None:
    content = field(1, b"location", above if level == 0 else 0) + field(2, b"../secret.bin")
    for depth, number in enumerate((13, 5, 7), start=1):  # external_data of initializer of graph
        content = field(number, content, above if level == depth else 0)
    with pytest.raises(GraphError, match="outside itself"):
        check_self_contained(content)


def test_fields_of_fixed_width_are_skipped() -> None:
    fixed = varint(99 << 3 | 1) + b"\xff" * 8 + varint(98 << 3 | 5) + b"\xff" * 4
    outside = PLACES["initializer"](True).SerializeToString()
    check_self_contained(fixed + TINY[0])
    with pytest.raises(GraphError, match="outside itself"):
        check_self_contained(fixed + outside)


@pytest.mark.parametrize(
    "body",
    [
        b"garbage",
        b"\xff" * 20,
        b"\x3a\x7fshort",
        TINY[0][:-1],
        varint(1 << 3 | 3),  # a group, which onnx.proto has not
    ],
)
def test_what_is_no_protocol_buffer_is_refused(body: bytes) -> None:
    with pytest.raises(GraphError, match=r"^it is not an ONNX file$"):
        check_self_contained(body)


def test_graphs_nested_without_end_are_refused() -> None:
    content = b""
    for _ in range(40):
        content = field(1, field(5, field(6, content)))  # node, attribute, graph
    with pytest.raises(GraphError, match="not an ONNX file"):
        check_self_contained(field(7, content))


@given(damaged(TINY) | st.binary(max_size=100))
@settings(max_examples=500)
def test_damaged_models_pass_or_are_refused_and_nothing_else(body: bytes) -> None:
    try:
        check_self_contained(body)
    except GraphError as error:
        lines = str(error).splitlines()
        assert len(lines) == 1
