from __future__ import annotations

import struct
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle.datatypes import BINARY_ONLY, DATATYPES, DTYPES, Datatype, array_from_bytes, array_to_bytes
from bundle.errors import InputError
from bundle.manifest import Manifest
from bundle.repository import read_bundle
from service.api.tensors import Wishes, parse_document, parse_header_length, write_response
from service.oip.messages import InferResponse, OutputTensor, RequestedOutput
from tests.bundle.test_datatypes import arrays
from tests.protocol_models import make_protocol_models

JSON_ONLY = Wishes({}, False)


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Manifest]:
    folder = tmp_path_factory.mktemp("models")
    make_protocol_models(folder)
    return {path.name: read_bundle(path / "1").manifest for path in folder.iterdir()}


def one(**changes: Any) -> dict[str, Any]:
    """A request of one good input, with changes to the input; None leaves a member out."""
    item = {"name": "x", "datatype": "FP32", "shape": [1, 1, 2], "data": [1, 2]} | changes
    return {"inputs": [{key: value for key, value in item.items() if value is not None}]}


# Requests


@given(data=st.data(), binary=st.lists(st.booleans(), min_size=1, max_size=4))
def test_tensors_of_any_type_come_back_from_json_and_from_the_bytes_behind_it(
    manifests: dict[str, Manifest], data: st.DataObject, binary: list[bool]
) -> None:
    items, parts, expected = [], [], {}
    for i, as_bytes in enumerate(binary):
        types = DATATYPES if as_bytes else [each for each in DATATYPES if each not in BINARY_ONLY]
        datatype = data.draw(st.sampled_from(types))
        array = data.draw(arrays(datatype, finite=True))
        item: dict[str, Any] = {"name": str(i), "datatype": datatype, "shape": array.shape}
        if as_bytes:
            parts.append(array_to_bytes(datatype, array))
            item["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            item["data"] = array.tolist()
        items.append(item)
        expected[str(i)] = (datatype, array)
    text = orjson.dumps({"inputs": items})
    request, _ = parse_document(manifests["two"], text + b"".join(parts), len(text))
    assert list(request.tensors) == list(request.datatypes) == list(expected)
    for name, (datatype, array) in expected.items():
        assert request.datatypes[name] == datatype
        assert request.tensors[name].dtype == DTYPES[datatype]
        np.testing.assert_array_equal(request.tensors[name], array)


def test_all_that_a_request_says_is_read(manifests: dict[str, Manifest]) -> None:
    document = one() | {
        "id": "mine",
        "parameters": {"priority": 2, "timeout": 1500, "binary_data_output": True, "my_own": "value"},
        "outputs": [
            {"name": "a", "parameters": {"classification": 3}},
            {"name": "b", "parameters": {"binary_data": False}},
            {"name": "c"},
        ],
    }
    request, wishes = parse_document(manifests["two"], orjson.dumps(document), None)
    assert request.outputs == (RequestedOutput("a", 3), RequestedOutput("b"), RequestedOutput("c"))
    assert (request.id, request.priority, request.timeout_s) == ("mine", 2, 0.0015)
    assert wishes == Wishes({"b": False}, True)


def test_members_that_are_null_are_as_if_they_were_not_there(manifests: dict[str, Manifest]) -> None:
    document = one() | {"id": None, "parameters": None, "outputs": None}
    document["inputs"][0]["parameters"] = None
    request, wishes = parse_document(manifests["two"], orjson.dumps(document), None)
    assert (request.id, request.outputs, request.priority, request.timeout_s) == ("", (), 0, None)
    assert wishes == Wishes({}, False)


def test_what_is_kept_of_one_request_does_not_touch_the_next(manifests: dict[str, Manifest]) -> None:
    text = orjson.dumps(one(data=None, parameters={"binary_data_size": 8}))
    for values in ([1, 2], [3, 4]):
        body = text + np.float32(values).tobytes()
        request, _ = parse_document(manifests["two"], body, len(text))
        assert request.tensors["x"].ravel().tolist() == values


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ([], "must be a JSON object"),
        ({}, '"inputs" must be a list of at least one'),
        ({"inputs": {}}, '"inputs" must be a list of at least one'),
        ({"inputs": []}, '"inputs" must be a list of at least one'),
        ({"inputs": [1]}, 'an input must be an object with a "name"'),
        (one(name=None), 'an input must be an object with a "name"'),
        (one(name=1), 'an input must be an object with a "name"'),
        (one(datatype=None), "the datatype 'None' is none of BOOL"),
        (one(datatype="FLOAT"), "the datatype 'FLOAT' is none of BOOL"),
        (one(datatype=["FP32"]), "is none of BOOL"),
        (one(datatype="x" * 500), f"the datatype '{'x' * 80}' is"),
        (one(shape=None), "the shape must be a list"),
        (one(shape=2), "the shape must be a list"),
        (one(shape=[2, -5]), "whole numbers of at least 0"),
        (one(shape=[1, 1.0, 2]), "whole numbers of at least 0"),
        (one(shape=[True, 1, 2]), "whole numbers of at least 0"),
        (one(shape=[2**4, 2**60 + 2]), "too many elements"),
        (one(shape=[1] * 99), "99 dimensions"),
        (one(data=None), "neither data nor a binary_data_size"),
        (one(parameters={"binary_data_size": 8}), "both data and a binary_data_size"),
        (one(parameters=[]), '"parameters" must be an object'),
        (one(data=None, parameters={"shared_memory_region": "r"}), "shared memory is not supported"),
        ({"inputs": one()["inputs"] * 2}, "an input stands twice"),
        (one() | {"id": 7}, '"id" must be a text'),
        (one() | {"outputs": {}}, '"outputs" must be a list'),
        (one() | {"outputs": ["y"]}, 'an output must be an object with a "name"'),
        (one() | {"outputs": [{"name": 1}]}, 'an output must be an object with a "name"'),
        (one() | {"outputs": [{"name": "y", "parameters": {"classification": -1}}]}, "'classification' must"),
        (
            one() | {"outputs": [{"name": "y", "parameters": {"classification": True}}]},
            "'classification' must",
        ),
        (
            one() | {"outputs": [{"name": "y", "parameters": {"binary_data": 1}}]},
            "'binary_data' must be true",
        ),
        (one() | {"parameters": {"binary_data_output": "true"}}, "'binary_data_output' must be true"),
        (one() | {"parameters": {"priority": -1}}, "'priority' must be a whole"),
        (one() | {"parameters": {"timeout": 1.5}}, "'timeout' must be a whole"),
        (one() | {"parameters": {"timeout": 2**63}}, "'timeout' must be a whole"),
    ],
)
def test_a_malformed_document_is_refused_for_its_reason(
    manifests: dict[str, Manifest], document: Any, reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        parse_document(manifests["two"], orjson.dumps(document), None)


@pytest.mark.parametrize("size", [-1, 1.0, "8", True, [8], 2**70])
def test_a_size_that_is_no_size_is_refused(manifests: dict[str, Manifest], size: Any) -> None:
    text = orjson.dumps(one(data=None, parameters={"binary_data_size": "SIZE"}))
    text = text.replace(b'"SIZE"', str(size).encode() if size == 2**70 else orjson.dumps(size))
    with pytest.raises(InputError, match="binary_data_size"):
        parse_document(manifests["two"], text + bytes(8), len(text))


@pytest.mark.parametrize(
    ("size", "sent", "reason"),
    [
        (8, 7, "a binary_data_size of 8, but 7 bytes are left"),
        (8, 9, "1 bytes that belong to no tensor"),
        (7, 7, r"7 bytes do not fit FP32 \[1, 1, 2\], which has 8"),
        (16, 16, "16 bytes do not fit"),
        (0, 0, "0 bytes do not fit"),
    ],
)
def test_bytes_that_do_not_fit_are_refused(
    manifests: dict[str, Manifest], size: int, sent: int, reason: str
) -> None:
    text = orjson.dumps(one(data=None, parameters={"binary_data_size": size}))
    with pytest.raises(InputError, match=reason):
        parse_document(manifests["two"], text + bytes(sent), len(text))


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 5000, b'{"inputs": [NaN]}', b"\xff", b'{"id": "\xff"}'])
def test_what_is_no_json_is_refused(manifests: dict[str, Manifest], body: bytes) -> None:
    with pytest.raises(InputError, match="not valid JSON"):
        parse_document(manifests["two"], body, None)
    with pytest.raises(InputError, match=r"not valid JSON|is one tensor"):
        parse_document(manifests["two"], body, len(body))


def test_a_header_length_beyond_the_body_is_refused(manifests: dict[str, Manifest]) -> None:
    with pytest.raises(InputError, match="is 11, but the body has only 10 bytes"):
        parse_document(manifests["two"], bytes(10), 11)


@pytest.mark.parametrize("text", ["", "-1", "+1", "1.0", "x", "1_0", "²", "1" * 10])
def test_a_header_length_that_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="must be a whole number"):
        parse_header_length(text)


@given(st.binary(max_size=100), st.none() | st.integers(0, 120))
def test_any_body_is_a_request_or_refused(
    manifests: dict[str, Manifest], body: bytes, header_length: int | None
) -> None:
    for name in ("two", "echo-fp32", "echo-bytes"):
        with pytest.raises(InputError):
            parse_document(manifests[name], body, header_length)


# A body that is one tensor


@pytest.mark.parametrize("datatype", ["UINT8", "FP32", "BF16"])
def test_the_free_dimension_of_a_lone_tensor_follows_from_its_size(
    manifests: dict[str, Manifest], datatype: Datatype
) -> None:
    free = {"name": "x", "datatype": datatype, "shape": ("batch", 2, "n")}
    manifest = manifests["two"].model_validate(manifests["two"].model_dump() | {"inputs": [free]})
    itemsize = DTYPES[datatype].itemsize
    request, wishes = parse_document(manifest, bytes(6 * itemsize), 0)
    assert request.tensors["x"].shape == (1, 2, 3)
    assert wishes == Wishes({}, True)
    with pytest.raises(InputError, match="do not fit"):
        parse_document(manifest, bytes(6 * itemsize + 1), 0)


def test_a_lone_text_is_its_bytes_without_a_length(manifests: dict[str, Manifest]) -> None:
    free = {"name": "x", "datatype": "BYTES", "shape": ("batch", 1)}
    manifest = manifests["two"].model_validate(manifests["two"].model_dump() | {"inputs": [free]})
    request, _ = parse_document(manifest, b"427", 0)
    assert request.tensors["x"].tolist() == [["427"]]


@pytest.mark.parametrize("name", ["two", "echo-fp32"])
def test_a_lone_tensor_is_refused_where_it_would_be_unclear(
    manifests: dict[str, Manifest], name: str
) -> None:
    with pytest.raises(InputError, match=f"{name} does not take a body that is one tensor"):
        parse_document(manifests[name], bytes(8), 0)


# Answers


def response(*outputs: OutputTensor, identifier: str = "") -> InferResponse:
    return InferResponse("m", "3", identifier, list(outputs))


def read(body: bytes, length: int | None) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read an answer as a client does."""
    document = orjson.loads(body[:length])
    rest = b"" if length is None else body[length:]
    tensors = {}
    for output in document["outputs"]:
        assert ("data" in output) != ("parameters" in output)
        if "data" in output:
            tensors[output["name"]] = np.array(output["data"], DTYPES[output["datatype"]]).reshape(
                output["shape"]
            )
            continue
        size = output["parameters"]["binary_data_size"]
        tensors[output["name"]] = array_from_bytes("x", output["datatype"], output["shape"], rest[:size])
        rest = rest[size:]
    assert not rest
    return document, tensors


@given(data=st.data(), identifier=st.sampled_from(["", "mine"]), default=st.booleans())
def test_outputs_of_any_type_come_back_in_the_form_that_is_asked_for(
    data: st.DataObject, identifier: str, default: bool
) -> None:
    outputs, own = [], {}
    for i in range(data.draw(st.integers(1, 4))):
        datatype = data.draw(st.sampled_from(DATATYPES))
        outputs.append(OutputTensor(str(i), datatype, data.draw(arrays(datatype, finite=True))))
        if (wish := data.draw(st.sampled_from([None, True, False]))) is not None:
            own[str(i)] = wish or datatype in BINARY_ONLY
    wishes = Wishes(own, default)
    document, found = read(*write_response(response(*outputs, identifier=identifier), wishes))
    assert (document["model_name"], document["model_version"]) == ("m", "3")
    assert document.get("id", "") == identifier
    assert [each["datatype"] for each in document["outputs"]] == [each.datatype for each in outputs]
    for output, written in zip(outputs, document["outputs"], strict=True):
        np.testing.assert_array_equal(found[output.name], output.array)
        assert ("parameters" in written) == own.get(output.name, default or output.datatype in BINARY_ONLY)


@pytest.mark.parametrize("datatype", sorted(BINARY_ONLY))
def test_short_fractions_come_as_bytes_unless_json_is_asked_for(datatype: Datatype) -> None:
    tensor = OutputTensor("y", datatype, np.zeros(2, DTYPES[datatype]))
    body, length = write_response(response(tensor), JSON_ONLY)
    assert length is not None
    assert body[length:] == bytes(4)
    with pytest.raises(InputError, match="ask for binary data"):
        write_response(response(tensor), Wishes({"y": False}, True))


def test_nan_has_no_form_in_json(manifests: dict[str, Manifest]) -> None:
    tensor = OutputTensor("y", "FP32", np.float32([1, np.nan]))
    with pytest.raises(InputError, match="y: holds NaN or infinity"):
        write_response(response(tensor), JSON_ONLY)
    body, length = write_response(response(tensor), Wishes({}, True))
    assert body[length:] == struct.pack("<2f", 1, np.nan)


def test_answers_of_one_form_and_differing_ids_or_shapes_are_told_apart() -> None:
    bodies = set()
    for identifier in ("", "a", "b", ""):
        for n in (1, 2):
            tensor = OutputTensor("y", "FP32", np.zeros(n, np.float32))
            bodies.add(write_response(response(tensor, identifier=identifier), Wishes({}, True)))
    assert len(bodies) == 6
