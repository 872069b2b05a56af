"""The OpenAPI document against a live service: schemathesis asks what it describes, and what it does not.

Two checks are left out. "positive_data_acceptance" wants every body that fits the document to be answered
with 200, but which shapes and media a model takes is no matter of the document. "negative_data_rejection"
wants every other one to be refused, but what is not known in a body of /v2 is passed over, as its clients
expect.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from service.app import create_app
from service.metrics import Metrics
from service.pool import RunPool
from service.registry import Registry
from service.resources import Resources
from service.settings import Settings
from tests import calibrated, tensor_models, tiny
from tests.conftest import LiveServer, running_service
from tests.service.calls import b64, pixels, png
from tests.service.live import eventually

CHECKS = [
    allow_header_conformance,
    content_type_conformance,
    not_a_server_error,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
]
DOCUMENT: dict[str, Any] = create_app(Settings(), Registry([], Resources(RunPool(1))), Metrics()).openapi()
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
# Those that change what is served come last; and all of these behind the good calls.
OPERATIONS = sorted(
    (result.ok() for result in SCHEMA.get_all_operations()),
    key=lambda operation: ("/serving" in operation.path, "/repository" in operation.path, operation.path),
)
NAMES = ["tiny-image", "tiny-audio", "roots", "mirror", "scalars", calibrated.NAME]
PIXELS = pixels(1)[0].tolist()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    repository: Path = tmp_path_factory.mktemp("models")
    tiny.make_image_bundle(repository)
    tiny.make_audio_bundle(repository)
    tensor_models.make_roots(repository)
    tensor_models.make_mirror(repository)
    tensor_models.make_scalars(repository)
    calibrated.make_calibrated_bundle(repository)
    store = f"sqlite:///{tmp_path_factory.mktemp('review')}/review.db"
    # No answer is as sure as 1, so all are kept for review.
    keeps = ("--review-url", store, "--review-max-confidence", "1")
    with running_service("--models", str(repository), *keeps) as server:
        for name, values in (("tiny-image", PIXELS), ("tiny-audio", [0.5, -0.5])):
            httpx.post(f"{server.url}/v1/models/{name}:predict", json={"instances": [values]})
            eventually(lambda name=name: kept(server, name) != "none")  # type: ignore[misc]
            label = httpx.put(
                f"{server.url}/v1/models/{name}/review/{kept(server, name)}", json={"label": tiny.LABELS[1]}
            )
            assert label.status_code == 200
        yield server


def kept(server: LiveServer, name: str) -> str:
    """Return the id of an input that is kept for review."""
    found = httpx.get(f"{server.url}/v1/models/{name}/review?labelled=true").json().get("items")
    found = found or httpx.get(f"{server.url}/v1/models/{name}/review").json().get("items")
    return str(found[0]["id"]) if found else "none"


INFER = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [4, 9]}]}
GOOD: list[tuple[str, str, str, str | None, Any]] = [
    ("POST", "/v1/models/{name}:predict", "tiny-image", "application/json", {"instances": [PIXELS]}),
    ("POST", "/v1/models/{name}:predict", "tiny-image", "application/json", {"inputs": [PIXELS]}),
    ("POST", "/v1/models/{name}:predict", "tiny-image", "application/json",
     {"instances": [b64(png(pixels(1)[0]))], "signature_name": "raw"}),
    ("POST", "/v1/models/{name}:predict", "roots", "application/json", {"instances": [[4, 9]]}),
    ("POST", "/v1/models/{name}/versions/{version}:predict", "scalars", "application/json",
     {"inputs": {"a": 1, "b": [2, 3]}}),
    ("POST", "/v1/models/{name}:confidence", "tiny-image", "application/json", {"instances": [PIXELS]}),
    ("POST", "/v1/models/{name}:predict", "tiny-image", "image/png", png(pixels(1)[0])),
    ("POST", "/v1/models/{name}:predict", "tiny-image", "multipart/form-data",
     {"file": [png(pixels(1)[0]), png(pixels(1)[0])]}),
    ("POST", "/v1/models/{name}:predict", "tiny-image", "application/octet-stream", pixels(3).tobytes()),
    ("POST", "/v2/models/{name}/infer", "roots", "application/json", INFER),
    ("POST", "/v2/models/{name}/infer", "roots", "application/json",
     {**INFER, "parameters": {"binary_data_output": True}}),
    *(
        ("GET", path, name, None, None)
        for path, methods in DOCUMENT["paths"].items()
        for name in ("tiny-image", "tiny-audio", "mirror")
        if "get" in methods and "{alias}" not in path and ("{name}" in path or name == "mirror")
        if not path.endswith("/report")  # which these bundles do not hold
        if name != "mirror" or ("{item}" not in path and ":export" not in path)  # of which nothing is kept
    ),
    ("GET", "/v1/models/{name}/report", calibrated.NAME, None, None),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "name", "media_type", "body"), GOOD)
def test_a_good_call_is_answered_with_200_as_the_document_describes(
    server: LiveServer, method: str, path: str, name: str, media_type: str | None, body: Any
) -> None:
    given_body = {} if body is None else {"body": body, "media_type": media_type}
    named = {"name": name, "version": "1", "item": kept(server, name)}
    case = SCHEMA[path][method].Case(path_parameters=named, **given_body)
    response = case.call_and_validate(base_url=server.url, checks=CHECKS)
    assert response.status_code == 200


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.label)
def test_whatever_is_asked_the_answer_is_one_that_the_document_describes(
    server: LiveServer, operation: Any
) -> None:
    has_parts = operation.body or operation.path_parameters or operation.query
    modes = list(GenerationMode) if has_parts else [GenerationMode.POSITIVE]  # nothing could be wrong

    @seed(1)
    @settings(
        max_examples=20,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(
        case=st.one_of(operation.as_strategy(generation_mode=mode) for mode in modes),
        name=st.sampled_from([None, *NAMES]),
    )
    def ask(case: schemathesis.Case, name: str | None) -> None:
        if name is not None and "name" in case.path_parameters:  # a name made up would seldom be one
            known = {"name": name, "version": "1", "alias": "stable", "item": kept(server, name)}
            case.path_parameters = {key: known[key] for key in case.path_parameters}
        case.call_and_validate(base_url=server.url, checks=CHECKS)

    ask()
