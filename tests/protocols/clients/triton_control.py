"""What the published example simple_http_model_control does: unload a model, load it again, list all.

Usage: triton_control.py http|grpc ADDRESS
"""

import sys

import numpy as np
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

kind, address = sys.argv[1:]
library = tritonclient.http if kind == "http" else tritonclient.grpc
client = library.InferenceServerClient(address)


def states() -> dict[str, str]:
    if kind == "http":
        return {each["name"]: each["state"] for each in client.get_model_repository_index()}
    return {each.name: each.state for each in client.get_model_repository_index().models}


def infer() -> list:
    tensor = library.InferInput("x", [1, 1, 2], "FP32")
    tensor.set_data_from_numpy(np.float32([[[1, 2]]]))
    return client.infer("echo-fp32", [tensor]).as_numpy("y").tolist()


def failure_of(function, *arguments) -> str:
    try:
        function(*arguments)
    except InferenceServerException as error:
        return error.message()
    return ""


assert states()["echo-fp32"] == "READY"
assert infer() == [[[1, 2]]]
client.unload_model("echo-fp32")
assert not client.is_model_ready("echo-fp32")
assert states()["echo-fp32"] == "UNAVAILABLE"
assert failure_of(infer)
assert client.is_model_ready("two")
client.load_model("echo-fp32")
assert client.is_model_ready("echo-fp32")
assert states()["echo-fp32"] == "READY"
assert infer() == [[[1, 2]]]
client.load_model("echo-fp32")  # once more, which reloads it
assert infer() == [[[1, 2]]]
assert failure_of(client.load_model, "nothing")
assert failure_of(client.unload_model, "nothing")
