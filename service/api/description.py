"""What the OpenAPI document says of bodies, headers, answers and refusals, which no type annotation tells.

There is one entry for each operation, for all its paths: with a version, with an alias, and with neither.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, NamedTuple

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from service.api.forms import MULTIPART
from service.api.inputs import JSON, MEDIA_TYPES, OCTETS
from service.api.paths import without_version
from service.api.problems import form_of
from service.api.roles import role_of
from service.api.schema_parts import FLAG, TEXT, Schema, an_object, list_of, ref
from service.api.schemas import SCHEMAS

# Of calls that choose a model, that read a body, that look at the review queue, and that run a model.
_CHOOSES = (404, 500, 503)
_READS = (400, 404, 408, 413, 500, 503)
_REVIEWS = (400, 404, 500, 503)
_RUNS = (400, 404, 408, 413, 415, 429, 500, 503, 504)

_FILE: Schema = {"type": "string", "format": "binary"}
_BINARY: Schema = {"schema": _FILE}
_NAME: Schema = {"type": "string", "pattern": "^[^/:]+$"}
_RETRY = {"Retry-After": {"description": "Seconds.", "schema": TEXT}}
_REQUEST_ID = {"X-Request-Id": {"description": "The one sent, or a new one.", "schema": TEXT}}
_CHALLENGE = {"WWW-Authenticate": {"description": "`Bearer`.", "schema": TEXT}}
_HEADERS = {401: _CHALLENGE, 429: _RETRY, 503: _RETRY}
_SECURITY: Schema = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key."},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "An API key."},
}
_INLINE_LENGTH = "Inference-Header-Content-Length"

_PREDICT_BODY: Schema = {
    JSON: {"schema": ref("PredictRequest")},
    **{media_type: _BINARY for media_types in MEDIA_TYPES.values() for media_type in media_types},
    MULTIPART: {
        "schema": {
            "type": "object",
            "description": "Media files under any names; each is a row.",
            "properties": {"file": list_of(_FILE)},
            "additionalProperties": list_of(_FILE),
        }
    },
    OCTETS: _BINARY,
}


class Operation(NamedTuple):
    """What is said of one operation.

    Attributes:
        answer: media type -> schema of an answer with 200.
        refusals: the other statuses.
        body: media type -> schema of the request; empty where the route says it itself, or there is none.
        headers: header of the request -> what it is for, beside X-Request-Id.
    """

    answer: dict[str, Any]
    refusals: tuple[int, ...] = (500,)
    body: dict[str, Any] = {}  # noqa: RUF012 - it is never changed
    headers: dict[str, str] = {}  # noqa: RUF012


def _json(schema: Schema) -> dict[str, Any]:
    return {JSON: {"schema": schema}}


_TIMEOUT = {"X-Timeout-Ms": "Answer within this time or with 504."}
_SHAPE = {"X-Tensor-Shape": "Shape of an octet-stream body, with the batch dimension, e.g. 2,28,28."}
_BINARY_LENGTH = {_INLINE_LENGTH: "Bytes of the JSON in front of binary tensors; 0 for a tensor alone."}

OPERATIONS: dict[tuple[str, str], Operation] = {
    ("get", "/v1/models"): Operation(_json(ref("Models"))),
    ("get", "/v1/models/{name}"): Operation(_json(ref("Model")), _CHOOSES),
    ("get", "/v1/models/{name}/metadata"): Operation(_json(ref("ModelSignatures")), _CHOOSES),
    ("get", "/v1/models/{name}/report"): Operation(
        {"text/html": {"schema": TEXT}, **_json(ref("Report"))}, (400, *_CHOOSES)
    ),
    ("get", "/v1/models/{name}/serving"): Operation(_json(ref("Serving")), (400, *_CHOOSES)),
    ("put", "/v1/models/{name}/serving"): Operation(_json(ref("Serving")), (*_READS, 504)),
    ("post", "/v1/models/{name}:predict"): Operation(
        _json(ref("Predictions")), _RUNS, _PREDICT_BODY, {**_TIMEOUT, **_SHAPE}
    ),
    ("post", "/v1/models/{name}:confidence"): Operation(
        _json(ref("Confidences")), _RUNS, _PREDICT_BODY, {**_TIMEOUT, **_SHAPE}
    ),
    ("post", "/v1/models/{name}:feedback"): Operation(
        _json(ref("FeedbackResults")),
        (*_READS, 401, 409, 410),
        _json(ref("FeedbackRequest")),
    ),
    ("get", "/v1/models/{name}/monitor"): Operation(_json(ref("MonitorReport")), (*_CHOOSES, 504)),
    ("get", "/v1/models/{name}/review"): Operation(_json(ref("ReviewItems")), _REVIEWS),
    ("get", "/v1/models/{name}/review:export"): Operation({OCTETS: _BINARY}, _REVIEWS),
    ("get", "/v1/models/{name}/review/{item}"): Operation(
        {
            **_json(ref("ReviewInput")),
            **dict.fromkeys(("image/png", "audio/wav", "text/plain", OCTETS), _BINARY),
        },
        _REVIEWS,
    ),
    ("put", "/v1/models/{name}/review/{item}"): Operation(_json(ref("ReviewItem")), _READS),
    ("delete", "/v1/models/{name}/review/{item}"): Operation(_json(an_object({"deleted": TEXT})), _REVIEWS),
    ("get", "/v2"): Operation(_json(ref("Server"))),
    ("get", "/v2/health/live"): Operation(_json(an_object({"live": FLAG}))),
    ("get", "/v2/health/ready"): Operation(_json(an_object({"ready": FLAG})), (500, 503)),
    ("get", "/v2/models/{name}"): Operation(_json(ref("ModelTensors")), _CHOOSES),
    ("get", "/v2/models/{name}/ready"): Operation(_json(ref("ModelReady")), _CHOOSES),
    ("get", "/v2/models/{name}/config"): Operation(_json(ref("ModelConfig")), _CHOOSES),
    ("get", "/v2/models/{name}/stats"): Operation(_json(ref("ModelStatistics")), (*_CHOOSES, 504)),
    ("get", "/v2/models/stats"): Operation(_json(ref("ModelStatistics")), (500, 503, 504)),
    ("post", "/v2/models/{name}/infer"): Operation(
        {**_json(ref("InferResponse")), OCTETS: _BINARY},
        tuple(status for status in _RUNS if status != 415),
        {JSON: {"schema": ref("InferRequest")}, OCTETS: _BINARY},
        {**_TIMEOUT, **_BINARY_LENGTH},
    ),
    ("post", "/v2/repository/index"): Operation(_json(ref("RepositoryIndex")), (*_READS, 504)),
    ("post", "/v2/repository/models/{name}/load"): Operation({}, (*_READS, 504)),
    ("post", "/v2/repository/models/{name}/unload"): Operation({}, (*_READS, 504)),
    ("get", "/healthz"): Operation(_json(an_object({"status": TEXT}))),
    ("get", "/readyz"): Operation(_json(an_object({"status": TEXT})), (500, 503)),
    ("get", "/metrics"): Operation({"text/plain": {"schema": TEXT}}),
}


def describe(app: FastAPI) -> None:
    """Make an application's OpenAPI document say all that is known of its routes."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title, version=app.version, description=app.description, routes=app.routes
            )
            document["components"] = {"schemas": SCHEMAS, "securitySchemes": _SECURITY}
            security: list[dict[str, list[str]]] = [{name: []} for name in _SECURITY]
            if not app.state.api_keys.required:
                security.append({})
            for path, methods in document["paths"].items():
                for method, route in methods.items():
                    _complete(path, method, route, security)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # the way that FastAPI documents


def _complete(path: str, method: str, route: dict[str, Any], security: list[dict[str, list[str]]]) -> None:
    operation = OPERATIONS[method, without_version(path)]
    role = role_of(method.upper(), path)
    if role is not None:
        route["description"] += f"\n\nWhere the server has API keys, it needs one with the role `{role}`."
        route["security"] = security
    parameters = route.setdefault("parameters", [])
    for parameter in parameters:
        if parameter["in"] == "path":
            parameter["schema"] = _NAME
    sent = {
        **operation.headers,
        "X-Request-Id": "Given back, and named in the log; made up where it is none.",
    }
    parameters += [
        {"name": name, "in": "header", "required": False, "description": text, "schema": TEXT}
        for name, text in sent.items()
    ]
    if operation.body:
        route["requestBody"] = {"required": True, "content": operation.body}
    refusal = "Error" if form_of(path) == "error" else "Problem"
    content = (
        _json(ref("Error")) if refusal == "Error" else {"application/problem+json": {"schema": ref(refusal)}}
    )
    route["responses"] = {"200": _answer(operation)} | {
        str(status): {
            "description": HTTPStatus(status).phrase,
            "headers": {**_REQUEST_ID, **_HEADERS.get(status, {})},
            "content": content,
        }
        for status in sorted({*operation.refusals, *(() if role is None else (401, 403))})
    }


def _answer(operation: Operation) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": "Done.", "headers": dict(_REQUEST_ID)}
    if operation.answer:
        answer["content"] = operation.answer
    if _INLINE_LENGTH in operation.headers:
        answer["headers"][_INLINE_LENGTH] = {"description": "Bytes of the JSON in front.", "schema": TEXT}
    return answer
