"""What a user of tritonclient's asyncio clients does.

Usage: triton_aio.py http|grpc ADDRESS
"""

import asyncio
import sys

import numpy as np
import tritonclient.grpc.aio
import tritonclient.http.aio
from tritonclient.utils import InferenceServerException

kind, address = sys.argv[1:]
library = tritonclient.http.aio if kind == "http" else tritonclient.grpc.aio


def inputs(array: np.ndarray) -> list:
    tensor = library.InferInput("x", list(array.shape), "FP32")
    tensor.set_data_from_numpy(array)
    return [tensor]


async def main() -> None:
    async with library.InferenceServerClient(address) as client:
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready("echo-fp32")
        arrays = [np.full((1, 2, i), i, np.float32) for i in range(20)]
        results = await asyncio.gather(*(client.infer("echo-fp32", inputs(array)) for array in arrays))
        for array, result in zip(arrays, results, strict=True):
            np.testing.assert_array_equal(result.as_numpy("y"), array)
        if kind == "http":
            for algorithm in ("gzip", "deflate"):
                result = await client.infer(
                    "echo-fp32",
                    inputs(arrays[9]),
                    request_compression_algorithm=algorithm,
                    response_compression_algorithm=algorithm,
                )
                np.testing.assert_array_equal(result.as_numpy("y"), arrays[9])
        failure = "none"
        try:
            await client.infer("nothing", inputs(arrays[1]))
        except InferenceServerException as error:
            failure = error.message()
        assert "there is no model 'nothing'" in failure


asyncio.run(main())
