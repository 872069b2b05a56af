"""What a user of KServe's inference client does over REST, with its protocols v1 and v2.

Usage: kserve_rest.py ADDRESS
"""

import asyncio
import sys

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

url = f"http://{sys.argv[1]}"


def request(model: str, array: np.ndarray, name: str, datatype: str, **options) -> InferRequest:
    tensor = InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array, **options)
    return InferRequest(model_name=model, infer_inputs=[tensor], request_id="mine")


async def use_v2() -> None:
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        assert await client.is_server_live(url)
        assert await client.is_server_ready(url)
        assert await client.is_model_ready(url, "two")
        assert not await client.is_model_ready(url, "nothing")
        x = np.float32([[[1, 2, 3]]])
        for binary_data in (True, False):
            sent = request("echo-fp32", x, "x", "FP32", binary_data=binary_data)
            response = await client.infer(url, sent, model_name="echo-fp32")
            assert response.model_name == "echo-fp32"
            assert response.id == "mine"
            np.testing.assert_array_equal(response.outputs[0].as_numpy(), x)
        half = x.astype(np.float16)
        sent = request("echo-fp16", half, "x", "FP16", binary_data=True)
        response = await client.infer(url, sent, model_name="echo-fp16")
        np.testing.assert_array_equal(response.outputs[0].as_numpy(), half)
        texts = np.array([[["a", "ö"]]], object)
        sent = request("echo-bytes", texts, "x", "BYTES", binary_data=False)
        response = await client.infer(url, sent, model_name="echo-bytes")
        assert response.outputs[0].data == ["a", "ö"]
        document = {"inputs": [{"name": "x", "shape": [1, 1, 1], "datatype": "FP32", "data": [7]}]}
        response = await client.infer(url, document, model_name="echo-fp32")
        assert response.outputs[0].data == [7]
        status, document = 200, {}
        try:
            await client.infer(url, {"inputs": []}, model_name="echo-fp32")
        except httpx.HTTPStatusError as error:
            status, document = error.response.status_code, error.response.json()
        assert status == 400
        assert "inputs" in document["error"]


async def use_v1() -> None:
    async with InferenceRESTClient(RESTConfig(protocol="v1")) as client:
        assert await client.is_model_ready(url, "tiny-image")
        instances = np.zeros((2, 4, 4), int).tolist()
        answer = await client.infer(url, {"instances": instances}, model_name="tiny-image")
        assert [each["label"] for each in answer["predictions"]] == ["zero", "zero"]


asyncio.run(use_v2())
asyncio.run(use_v1())
