from pathlib import Path
from typing import Any

import httpx
import pytest

from bundle.datatypes import DATATYPES
from service.api.signatures import DTYPES
from tests import tensor_models, tiny
from tests.conftest import running_app
from tests.service.calls import assert_problem

pytestmark = pytest.mark.anyio


def tensor(name: str, dtype: str, *sizes: str) -> dict[str, Any]:
    dims = [{"size": size, "name": ""} for size in sizes]
    return {"dtype": dtype, "tensor_shape": {"dim": dims, "unknown_rank": False}, "name": name}


def test_every_datatype_has_a_name_of_its_own_there() -> None:
    assert set(DTYPES) == set(DATATYPES)
    assert len(set(DTYPES.values())) == len(DATATYPES)


async def test_a_classification_has_labels_or_probabilities(client: httpx.AsyncClient) -> None:
    content = (await client.get("/v1/models/tiny-audio/metadata")).json()
    assert content["model_spec"] == {"name": "tiny-audio", "signature_name": "", "version": "1"}
    signatures = content["metadata"]["signature_def"]["signature_def"]
    inputs = {"samples": tensor("samples", "DT_FLOAT", "-1", "-1")}
    assert signatures["serving_default"] == {
        "inputs": inputs,
        "outputs": {
            "label": tensor("label", "DT_STRING", "-1"),
            "index": tensor("index", "DT_INT64", "-1"),
            "probability": tensor("probability", "DT_FLOAT", "-1"),
        },
        "method_name": "tensorflow/serving/predict",
    }
    assert signatures["raw"] == {
        "inputs": inputs,
        "outputs": {"probabilities": tensor("probabilities", "DT_FLOAT", "-1", "3")},
        "method_name": "tensorflow/serving/predict",
    }


async def test_a_model_of_tensors_has_all_of_them_in_both_signatures(tmp_path: Path) -> None:
    tensor_models.make_mirror(tmp_path)
    tensor_models.make_scalars(tmp_path)
    async with running_app(tmp_path) as client:
        mirror = (await client.get("/v1/models/mirror/versions/1/metadata")).json()
        scalars = (await client.get("/v1/models/scalars/metadata")).json()
    signatures = mirror["metadata"]["signature_def"]["signature_def"]
    assert signatures["serving_default"] == signatures["raw"]
    raw = signatures["raw"]
    assert raw["inputs"]["word"] == tensor("word", "DT_STRING", "-1", "2")
    assert {name: each["dtype"] for name, each in raw["outputs"].items()} == {
        "same_flag": "DT_BOOL",
        "same_count": "DT_INT64",
        "same_half": "DT_HALF",
        "same_word": "DT_STRING",
        "same_blob_bytes": "DT_STRING",
    }
    raw = scalars["metadata"]["signature_def"]["signature_def"]["raw"]
    assert raw["inputs"] == {"a": tensor("a", "DT_FLOAT"), "b": tensor("b", "DT_FLOAT", "-1")}


async def test_a_version_and_an_alias_have_metadata_of_their_own(tmp_path: Path) -> None:
    for version in (1, 2):
        tiny.make_image_bundle(tmp_path, version=version)
    (tmp_path / "tiny-image" / "serving.json").write_text('{"aliases": {"old": 1}}')
    async with running_app(tmp_path) as client:
        for within, version in (("", "2"), ("/versions/1", "1"), ("/labels/old", "1")):
            content = (await client.get(f"/v1/models/tiny-image{within}/metadata")).json()
            assert content["model_spec"]["version"] == version
        for path in ("nothing/metadata", "tiny-image/versions/3/metadata", "tiny-image/labels/new/metadata"):
            assert_problem(await client.get(f"/v1/models/{path}"), 404, "no ")
