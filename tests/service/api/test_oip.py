from pathlib import Path

import httpx
import pytest

from service import __version__
from tests.conftest import running_app

pytestmark = pytest.mark.anyio


async def test_the_server_tells_what_it_is_and_can(client: httpx.AsyncClient) -> None:
    for path in ("/v2", "/v2/"):
        content = (await client.get(path)).json()
        assert (content["name"], content["version"]) == ("octet", __version__)
        assert {"binary_tensor_data", "classification", "statistics"} <= set(content["extensions"])


async def test_it_is_ready_until_it_is_asked_to_stop(repository: Path) -> None:
    async with running_app(repository) as client:
        assert (await client.get("/v2/health/live")).json() == {"live": True}
        assert (await client.get("/v2/health/ready")).json() == {"ready": True}
        client.app.state.draining = True  # type: ignore[attr-defined]
        answer = await client.get("/v2/health/ready")
        assert (answer.status_code, answer.json()) == (503, {"error": "this server is about to stop"})
        assert (await client.get("/v2/health/live")).status_code == 200


async def test_a_model_tells_its_tensors(client: httpx.AsyncClient) -> None:
    content = (await client.get("/v2/models/tiny-image")).json()
    properties = content.pop("properties")
    assert content == {
        "name": "tiny-image",
        "versions": ["1", "2"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "pixels", "datatype": "UINT8", "shape": [-1, 4, 4]}],
        "outputs": [
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]},
            {"name": "logits", "datatype": "FP32", "shape": [-1, 3]},
            {"name": "features", "datatype": "FP32", "shape": [-1, 16]},
        ],
    }
    assert (properties["task"], properties["precision"]) == ("classification", "int8")
    one = (await client.get("/v2/models/tiny-image/versions/1")).json()
    assert one["versions"] == ["1"]


async def test_lengths_are_no_input_that_a_caller_must_send(client: httpx.AsyncClient) -> None:
    content = (await client.get("/v2/models/tiny-audio")).json()
    assert content["inputs"] == [{"name": "samples", "datatype": "FP32", "shape": [-1, -1]}]
    config = (await client.get("/v2/models/tiny-audio/config")).json()
    assert [(tensor["name"], tensor["optional"]) for tensor in config["input"]] == [
        ("samples", False),
        ("lengths", True),
    ]


async def test_a_configuration_leaves_out_the_batch(client: httpx.AsyncClient) -> None:
    config = (await client.get("/v2/models/tiny-image/versions/1/config")).json()
    assert (config["name"], config["max_batch_size"]) == ("tiny-image", 8)
    assert config["input"] == [
        {"name": "pixels", "data_type": "TYPE_UINT8", "dims": [4, 4], "optional": False}
    ]
    assert {tensor["name"]: tensor["dims"] for tensor in config["output"]} == {
        "probabilities": [3],
        "logits": [3],
        "features": [16],
    }


async def test_readiness_is_told_of_models_and_versions(client: httpx.AsyncClient) -> None:
    for path in ("tiny-image", "tiny-image/versions/2", "tiny-audio"):
        answer = await client.get(f"/v2/models/{path}/ready")
        assert (answer.status_code, answer.json()["ready"]) == (200, True)


@pytest.mark.parametrize("tail", ["", "/ready", "/config", "/stats"])
@pytest.mark.parametrize("model", ["nothing", "tiny-image/versions/3", "tiny-image/versions/x"])
async def test_what_is_not_there_is_an_error_of_the_protocol(
    client: httpx.AsyncClient, model: str, tail: str
) -> None:
    answer = await client.get(f"/v2/models/{model}{tail}")
    assert answer.status_code == 404
    assert list(answer.json()) == ["error"]
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]


async def test_paths_and_methods_that_are_not_there_are_errors_too(client: httpx.AsyncClient) -> None:
    assert (await client.get("/v2/nothing")).json() == {"error": "there is nothing at /v2/nothing"}
    answer = await client.put("/v2/models/tiny-image/infer")
    assert (answer.status_code, list(answer.json())) == (405, ["error"])


async def test_statistics_count_what_was_asked_and_run(repository: Path) -> None:
    image = {"name": "pixels", "shape": [3, 4, 4], "datatype": "UINT8", "data": [0] * 48}
    async with running_app(repository, threads=1) as client:
        before = (await client.get("/v2/models/tiny-image/stats")).json()["model_stats"]
        assert [(each["name"], each["version"]) for each in before] == [
            ("tiny-image", "1"),
            ("tiny-image", "2"),
        ]
        for _ in range(4):
            answer = await client.post("/v2/models/tiny-image/infer", json={"inputs": [image]})
            assert answer.status_code == 200
        assert (await client.post("/v2/models/tiny-image/infer", json={"inputs": []})).status_code == 400
        client.app.state.metrics.gather()  # type: ignore[attr-defined]
        (found,) = (await client.get("/v2/models/tiny-image/versions/2/stats")).json()["model_stats"]
        everything = (await client.get("/v2/models/stats")).json()["model_stats"]
    assert (found["inference_count"], found["execution_count"]) == (12, 4)
    stats = found["inference_stats"]
    assert (stats["success"]["count"], stats["fail"]["count"], stats["queue"]["count"]) == (4, 1, 4)
    assert stats["success"]["ns"] > stats["compute_infer"]["ns"] > 0
    assert [(each["batch_size"], each["compute_infer"]["count"]) for each in found["batch_stats"]] == [(3, 4)]
    assert found["last_inference"] > 1_700_000_000_000
    assert found in everything
    assert len(everything) == 3
