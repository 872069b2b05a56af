"""What the OpenAPI document says of a call's body, headers and answer, which no type annotation tells."""

from __future__ import annotations

from typing import Any

from service.api.inputs import JSON, MEDIA_TYPES, OCTETS

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_INSTANCES = {
    "schema": {
        "type": "object",
        "required": ["instances"],
        "additionalProperties": False,
        "properties": {
            "instances": {
                "type": "array",
                "minItems": 1,
                "items": {"description": 'Nested numbers in the shape of one row, or {"b64": "…"}.'},
            }
        },
    }
}


def _header(name: str, description: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "header",
        "required": False,
        "description": description,
        "schema": {"type": "string"},
    }


# Merged into the description of every route that runs a model.
RUNS_A_MODEL: dict[str, Any] = {
    "parameters": [
        _header("X-Timeout-Ms", "Answer within this time or with 504."),
        _header("X-Tensor-Shape", "Shape of an octet-stream body, with the batch dimension, e.g. 2,28,28."),
        _header("X-Request-Id", "Given back, and named in the log; made up where there is none."),
    ],
    "requestBody": {
        "required": True,
        "content": {
            JSON: _INSTANCES,
            **{media_type: _BINARY for media_types in MEDIA_TYPES.values() for media_type in media_types},
            OCTETS: _BINARY,
        },
    },
}
