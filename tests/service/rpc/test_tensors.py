from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn

from bundle.datatypes import DATATYPES, DTYPES
from bundle.errors import InputError
from service.oip.messages import InferResponse, OutputTensor
from service.rpc import open_inference_pb2 as pb
from service.rpc.tensors import parse_request, write_response
from tests.service.rpc.asking import arrays, request

RAW_ONLY = ("FP16", "BF16")


@st.composite
def tensors(draw: st.DrawFn) -> tuple[str, np.ndarray]:
    datatype = draw(st.sampled_from(DATATYPES))
    shape = draw(stn.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
    elements = st.text(max_size=5) if datatype == "BYTES" else None
    return datatype, draw(stn.arrays(DTYPES[datatype], shape, elements=elements))


def same(one: np.ndarray, other: np.ndarray) -> bool:
    if one.dtype == object:
        return one.shape == other.shape and [*one.flat] == [*other.flat]
    return one.shape == other.shape and one.dtype == other.dtype and one.tobytes() == other.tobytes()


@given(st.lists(tensors(), min_size=1, max_size=3), st.booleans())
def test_tensors_of_every_type_arrive_as_they_were_sent(
    sent: list[tuple[str, np.ndarray]], typed: bool
) -> None:
    typed = typed and not any(datatype in RAW_ONLY for datatype, _ in sent)
    inputs = {f"x{i}": each for i, each in enumerate(sent)}
    parsed = parse_request(request("m", inputs, typed=typed, id="7"))
    assert parsed.id == "7"
    assert parsed.datatypes == {name: datatype for name, (datatype, _) in inputs.items()}
    for name, (_, array) in inputs.items():
        assert same(parsed.tensors[name], array)


@given(st.lists(tensors(), min_size=1, max_size=3), st.booleans())
def test_answers_of_every_type_arrive_as_they_are(sent: list[tuple[str, np.ndarray]], typed: bool) -> None:
    outputs = [OutputTensor(f"y{i}", datatype, array) for i, (datatype, array) in enumerate(sent)]  # type: ignore[arg-type]
    message = write_response(InferResponse("m", "3", "7", outputs), typed=typed)
    assert (message.model_name, message.model_version, message.id) == ("m", "3", "7")
    has_bytes = bool(message.raw_output_contents)
    assert has_bytes == (not typed or any(datatype in RAW_ONLY for datatype, _ in sent))
    for tensor, array in zip(outputs, arrays(message).values(), strict=True):
        assert same(array, tensor.array)


def one(**changes: Any) -> pb.ModelInferRequest:
    message = request("m", {"x": ("INT8", [1, 2])}, typed="contents" in changes)
    for name, value in changes.items():
        target = message.inputs[0] if name in ("datatype", "shape", "contents") else message
        target.ClearField(name)  # type: ignore[arg-type]
        filled = type(target)(**{name: value})
        target.MergeFrom(filled)  # type: ignore[arg-type]
    return message


def parameter(**value: Any) -> dict[str, pb.InferParameter]:
    return {"priority": pb.InferParameter(**value)}


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (pb.ModelInferRequest(), "the request has no inputs"),
        (one(raw_input_contents=[b"ab", b"c"]), "1 inputs with 2 raw_input_contents"),
        (one(raw_input_contents=[b"a"]), "x: 1 bytes do not fit INT8 [2], which has 2"),
        (one(raw_input_contents=[b"abc"]), "x: 3 bytes do not fit INT8 [2], which has 2"),
        (one(datatype="INT4"), "x: the datatype 'INT4' is none of BOOL, "),
        (one(shape=[-1, 2]), "x: the shape must be a list of whole numbers of at least 0"),
        (one(shape=[1] * 33), "x: a shape of 33 dimensions"),
        (one(shape=[2**40, 2**40]), "x: the shape has too many elements"),
        (one(contents={}), "x: 0 int_contents do not fit [2], which has 2"),
        (one(contents={"int_contents": [1, 2, 3]}), "x: 3 int_contents do not fit [2]"),
        (one(contents={"int_contents": [1, 128]}), "x: holds values from 1 to 128, beyond INT8"),
        (one(contents={"fp32_contents": [1, 2]}), "x: INT8 stands in int_contents, not in fp32_contents"),
        (
            one(datatype="FP16", contents={"fp32_contents": [1, 2]}),
            "x: FP16 can be sent in raw_input_contents",
        ),
        (one(datatype="BYTES", contents={"bytes_contents": [b"\xff", b"a"]}), "is not UTF-8"),
        (one(parameters=parameter(string_param="1")), "'priority' must be a whole number"),
        (one(parameters=parameter(bool_param=True)), "'priority' must be a whole number"),
        (one(parameters=parameter(double_param=1)), "'priority' must be a whole number"),
        (one(parameters=parameter(int64_param=-1)), "'priority' must be a whole number"),
        (one(parameters=parameter(uint64_param=2**63)), "'priority' must be a whole number"),
        (one(parameters=parameter()), "'priority' must be a whole number"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(message: pb.ModelInferRequest, words: str) -> None:
    with pytest.raises(InputError) as refused:
        parse_request(message)
    assert words in str(refused.value)


def test_one_request_has_its_elements_in_one_form() -> None:
    message = request("m", {"x": ("INT8", [1])})
    message.inputs[0].contents.int_contents.append(1)
    with pytest.raises(InputError, match="x: it has both contents and raw_input_contents"):
        parse_request(message)


def test_an_input_that_stands_twice_is_refused() -> None:
    message = request("m", {"x": ("INT8", [1])})
    message.MergeFrom(message)
    with pytest.raises(InputError, match="the input 'x' stands twice"):
        parse_request(message)


@pytest.mark.parametrize("kind", ["int64_param", "uint64_param"])
def test_whole_numbers_are_taken_in_both_types_that_clients_send(kind: str) -> None:
    message = request("m", {"x": ("INT8", [1])}, outputs={"y": 2})
    message.parameters["priority"].MergeFrom(pb.InferParameter(**{kind: 1}))  # type: ignore[arg-type]
    message.parameters["timeout"].MergeFrom(pb.InferParameter(**{kind: 2_500_000}))  # type: ignore[arg-type]
    parsed = parse_request(message)
    assert (parsed.priority, parsed.timeout_s) == (1, 2.5)
    assert parsed.outputs == (("y", 2),)


def test_without_parameters_there_is_neither_priority_nor_timeout() -> None:
    parsed = parse_request(request("m", {"x": ("INT8", [1])}))
    assert (parsed.priority, parsed.timeout_s, parsed.outputs, parsed.id) == (0, None, (), "")
