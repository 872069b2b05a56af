"""Requests of gRPC, and what answers say, written once more and without the code that is tested."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, cast

import grpc
import numpy as np
import pytest
from fastapi import FastAPI

from service.rpc import open_inference_pb2 as pb
from service.rpc.server import RpcServer, address_of, reserving_port
from service.server import backend_of
from tests.service.rpc.open_inference_pb2_grpc import GRPCInferenceServiceStub

ID = "x-request-id"
_NUMPY = {
    "BOOL": "?", "UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8",
    "INT8": "i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8",
    "FP16": "<f2", "BF16": "<u2", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip
_FIELDS = {
    "BOOL": "bool_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip


def request(
    model: str,
    inputs: Mapping[str, tuple[str, Any]],
    *,
    typed: bool = False,
    outputs: Any = (),
    **fields: Any,
) -> pb.ModelInferRequest:
    """Return a request of inputs, name -> (datatype, array).

    Args:
        outputs: names, or name -> how many classes.
    """
    message = pb.ModelInferRequest(model_name=model, **fields)
    for name, (datatype, values) in inputs.items():
        array = np.asarray(values, object if datatype == "BYTES" else _NUMPY[datatype])
        tensor = message.inputs.add(name=name, datatype=datatype, shape=array.shape)
        if not typed:
            message.raw_input_contents.append(to_bytes(datatype, array))
        else:
            elements = [each.encode() if isinstance(each, str) else each for each in array.ravel().tolist()]
            getattr(tensor.contents, _FIELDS[datatype]).extend(elements)
    for name in outputs:
        output = message.outputs.add(name=name)
        if isinstance(outputs, Mapping):
            output.parameters["classification"].int64_param = outputs[name]
    return message


def arrays(response: pb.ModelInferResponse) -> dict[str, np.ndarray]:
    """Return output -> array; elements of BYTES as texts."""
    found = {}
    for i, output in enumerate(response.outputs):
        if response.raw_output_contents:
            assert not output.HasField("contents")
            array = from_bytes(output.datatype, response.raw_output_contents[i])
        else:
            elements = list(getattr(output.contents, _FIELDS[output.datatype]))
            texts = [each.decode() if isinstance(each, bytes) else each for each in elements]
            array = np.array(texts, _NUMPY.get(output.datatype, object))
        found[output.name] = array.reshape(tuple(output.shape))
    return found


def to_bytes(datatype: str, array: np.ndarray) -> bytes:
    if datatype != "BYTES":
        return array.tobytes()
    texts = [each.encode() if isinstance(each, str) else each for each in array.ravel()]
    return b"".join(len(text).to_bytes(4, "little") + text for text in texts)


def from_bytes(datatype: str, content: bytes) -> np.ndarray:
    if datatype != "BYTES":
        return np.frombuffer(content, _NUMPY[datatype])
    texts = []
    while content:
        size = int.from_bytes(content[:4], "little")
        texts.append(content[4 : 4 + size].decode())
        content = content[4 + size :]
    return np.array(texts, object)


@asynccontextmanager
async def rpc_of(app: FastAPI) -> AsyncIterator[tuple[Any, RpcServer]]:
    """Serve a running application over gRPC too; yield a stub, which has its channel, and the server."""
    with reserving_port(app.state.settings.model_copy(update={"grpc_port": 0})) as settings:
        app.state.settings = settings
        server = RpcServer(backend_of(app))
        await server.start()
        try:
            async with grpc.aio.insecure_channel(address_of(settings)) as channel:
                stub: Any = cast(Any, GRPCInferenceServiceStub)(channel)
                stub.channel = channel
                yield stub, server
        finally:
            await server.stop(0)


@contextmanager
def refused(code: grpc.StatusCode, words: str = "") -> Any:
    """The call in the block fails with a code and a sentence that holds these words."""
    with pytest.raises(grpc.RpcError) as caught:
        yield
    error: Any = caught.value
    assert error.code() == code, error
    assert words in error.details()


def id_of(pairs: Any) -> str:
    """Return the id that goes with a status."""
    return str(dict(tuple(pair) for pair in pairs)[ID])
