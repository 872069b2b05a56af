"""What a user of tritonclient does: health, metadata, and inference in every form, over HTTP or gRPC.

Usage: triton_infer.py http|grpc ADDRESS
"""

import sys
from functools import partial
from queue import Queue

import ml_dtypes
import numpy as np
import tritonclient.grpc
import tritonclient.http
from google.protobuf.json_format import MessageToDict
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

kind, address = sys.argv[1:]
is_http = kind == "http"
library = tritonclient.http if is_http else tritonclient.grpc
client = library.InferenceServerClient(address, **({"concurrency": 4} if is_http else {}))


def given(name, array, **options):
    """Make an input of an array; over gRPC all data are binary."""
    tensor = library.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    tensor.set_data_from_numpy(array, **(options if is_http else {}))
    return tensor


def wanted(name, binary_data=True, class_count=0):
    options = {"binary_data": binary_data} if is_http else {}
    return library.InferRequestedOutput(name, class_count=class_count, **options)


def as_dict(answer):
    return answer if is_http else MessageToDict(answer, preserving_proto_field_name=True)


def failure_of(function, *arguments, **options):
    try:
        function(*arguments, **options)
    except InferenceServerException as error:
        return error.message()
    return "none"


# Health and metadata
assert client.is_server_live()
assert client.is_server_ready()
assert client.is_model_ready("two")
assert client.is_model_ready("two", "1")
assert not client.is_model_ready("nothing")
server = as_dict(client.get_server_metadata())
assert server["name"] == "octet"
assert "statistics" in server["extensions"]
metadata = as_dict(client.get_model_metadata("two"))
assert metadata["name"] == "two"
assert metadata["versions"] == ["1"]
assert [(each["name"], each["datatype"], list(map(int, each["shape"]))) for each in metadata["inputs"]] == [
    ("a", "FP32", [-1, 3]),
    ("b", "FP32", [-1, 3]),
]
assert [each["name"] for each in metadata["outputs"]] == ["total", "difference"]
config = as_dict(client.get_model_config("two"))
config = config if is_http else config["config"]
assert config["name"] == "two"
assert config["max_batch_size"] == 4
assert [each["data_type"] for each in config["input"]] == ["TYPE_FP32"] * 2
assert "there is no model 'nothing'" in failure_of(client.get_model_metadata, "nothing")

# Inference as by default: all data are binary
a = np.arange(6, dtype=np.float32).reshape(2, 3)
b = np.full((2, 3), 2, np.float32)
result = client.infer("two", [given("a", a), given("b", b)])
np.testing.assert_array_equal(result.as_numpy("total"), a + b)
np.testing.assert_array_equal(result.as_numpy("difference"), a - b)
assert result.as_numpy("nothing") is None

# As the published example simple_http_infer_client does it: one input in JSON, one output in JSON
result = client.infer(
    "two",
    [given("a", a, binary_data=False), given("b", b, binary_data=True)],
    outputs=[wanted("total"), wanted("difference", binary_data=False)],
    request_id="mine",
    model_version="1",
    priority=1,
    timeout=5_000_000,
)
np.testing.assert_array_equal(result.as_numpy("total"), a + b)
np.testing.assert_array_equal(result.as_numpy("difference"), a - b)
response = as_dict(result.get_response())
assert (response["model_name"], response["model_version"], response["id"]) == ("two", "1", "mine")
result = client.infer("two", [given("a", a, binary_data=False), given("b", b, binary_data=False)])
np.testing.assert_array_equal(result.as_numpy("total"), a + b)

# Every datatype
for dtype in ("bool", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"):
    x = np.array([[[0, 1], [1, 1]]], dtype)
    model = f"echo-{np_to_triton_dtype(x.dtype).lower()}"
    np.testing.assert_array_equal(client.infer(model, [given("x", x)]).as_numpy("y"), x)
    if dtype != "f2":
        result = client.infer(model, [given("x", x, binary_data=False)], outputs=[wanted("y", False)])
        np.testing.assert_array_equal(result.as_numpy("y"), x)
x = np.array([[[1.5, -2]]], ml_dtypes.bfloat16)
np.testing.assert_array_equal(client.infer("echo-bf16", [given("x", x)]).as_numpy("y"), x)

# Text, as simple_http_string_infer_client does it
for values in (["ä", "", "\x00"], [b"1", b"22"]):
    x = np.array([[values]], object)
    result = client.infer("echo-bytes", [given("x", x)])
    texts = [each if isinstance(each, bytes) else each.encode() for each in values]
    assert result.as_numpy("y").ravel().tolist() == texts
x = np.array([[["a", "ö"]]], object)
result = client.infer("echo-bytes", [given("x", x, binary_data=False)], outputs=[wanted("y", False)])
assert [each if isinstance(each, str) else each.decode() for each in result.as_numpy("y").ravel()] == [
    "a",
    "ö",
]

# Scalars, and an input that is left out
assert client.infer("default", [given("x", np.array(2, np.float32))]).as_numpy("z") == 7

# Compression
big = np.zeros((1, 100, 100), np.float32)
for algorithm in ("gzip", "deflate"):
    if is_http:
        options = {"request_compression_algorithm": algorithm, "response_compression_algorithm": algorithm}
        each = [{"request_compression_algorithm": algorithm}, {"response_compression_algorithm": algorithm}]
    else:
        options, each = {"compression_algorithm": algorithm}, []
    for chosen in (options, *each):
        result = client.infer("echo-fp32", [given("x", big)], **chosen)
        np.testing.assert_array_equal(result.as_numpy("y"), big)

# Classification
pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 4), np.uint8)
result = client.infer("tiny-image", [given("pixels", pixels)])
probabilities = result.as_numpy("probabilities")
np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
result = client.infer(
    "tiny-image", [given("pixels", pixels)], outputs=[wanted("probabilities", class_count=2)]
)
classes = result.as_numpy("probabilities")
assert classes.shape == (2, 2)
for texts, row in zip(classes, probabilities, strict=True):
    for text, index in zip(texts, np.argsort(-row), strict=False):
        value, found, label = text.decode().split(":")
        assert (int(found), label) == (index, ("zero", "one", "two")[index])
        assert abs(float(value) - row[index]) < 1e-5

# Asynchronously
if is_http:
    pending = [client.async_infer("two", [given("a", a + i), given("b", b)]) for i in range(8)]
    results = [each.get_result() for each in pending]
else:
    queue: Queue = Queue()
    for i in range(8):
        inputs = [given("a", a + i), given("b", b)]
        client.async_infer("two", inputs, partial(lambda i, result, error: queue.put((i, result, error)), i))
    found = sorted((queue.get(timeout=30) for _ in range(8)), key=lambda each: each[0])
    assert all(error is None for _, _, error in found), found
    results = [result for _, result, _ in found]
for i, result in enumerate(results):
    np.testing.assert_array_equal(result.as_numpy("total"), a + i + b)

# Statistics
statistics = as_dict(client.get_inference_statistics("two"))["model_stats"]
assert [(each["name"], each["version"]) for each in statistics] == [("two", "1")]
assert int(statistics[0]["inference_count"]) >= 22
assert int(statistics[0]["inference_stats"]["success"]["count"]) >= 11
assert {each["name"] for each in as_dict(client.get_inference_statistics())["model_stats"]} >= {
    "two",
    "tiny-image",
}

# What is refused is told
assert "there is no input 'c'" in failure_of(
    client.infer, "two", [given("a", a), given("b", b), given("c", b)]
)
assert "the input 'b' is missing" in failure_of(client.infer, "two", [given("a", a)])
both = [given("a", a), given("b", b)]
assert "there is no output" in failure_of(client.infer, "two", both, outputs=[wanted("c")])
assert "there is no model" in failure_of(client.infer, "nothing", [given("a", a)])
assert "has no version" in failure_of(client.infer, "two", [given("a", a), given("b", b)], model_version="9")
assert "is FP32, not FP64" in failure_of(client.infer, "echo-fp32", [given("x", big.astype(np.float64))])
client.close()
