"""The JSON that goes over the wire, as the schemas of the OpenAPI document (JSON Schema 2020-12)."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import models_json_schema

from bundle.datatypes import DATATYPES
from bundle.manifest import Graph, Provenance, TensorSpec
from bundle.media import AudioDecoding, ImageDecoding, TensorDecoding, TextDecoding
from bundle.serving import Serving
from service.api.instances import SIGNATURES
from service.api.signatures import DTYPES

Schema = dict[str, Any]

_DECODINGS = (AudioDecoding, ImageDecoding, TensorDecoding, TextDecoding)
_MODELS = (Graph, Provenance, Serving, TensorSpec, *_DECODINGS)

ANY: Schema = {}
TEXT: Schema = {"type": "string"}
FLAG: Schema = {"type": "boolean"}
COUNT: Schema = {"type": "integer", "minimum": 0}
NUMBER: Schema = {"type": "number"}
PROBABILITY: Schema = {"type": "number", "minimum": 0, "maximum": 1}


def ref(name: str) -> Schema:
    """Return a reference to one of `SCHEMAS`."""
    return {"$ref": f"#/components/schemas/{name}"}


def list_of(items: Schema, **more: Any) -> Schema:
    """Return the schema of a list."""
    return {"type": "array", "items": items, **more}


def map_of(values: Schema) -> Schema:
    """Return the schema of an object with any names."""
    return {"type": "object", "additionalProperties": values}


def an_object(required: dict[str, Schema], optional: dict[str, Schema] | None = None, **more: Any) -> Schema:
    """Return the schema of an object with these members, and maybe others."""
    properties = {**required, **(optional or {})}
    return {"type": "object", "required": list(required), "properties": properties, **more}


def _nullable(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _enum(*values: str) -> Schema:
    return {"type": "string", "enum": list(values)}


def _failures() -> dict[str, Schema]:
    told = {
        "type": TEXT,
        "title": TEXT,
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": TEXT,
        "error": {"type": "string", "description": "The same as `detail`, for clients of other servers."},
        "request_id": TEXT,
    }
    return {
        "Problem": an_object(told, additionalProperties=False, description="As RFC 9457 has it."),
        "Error": an_object({"error": TEXT}, additionalProperties=False),
    }


def _predictions() -> dict[str, Schema]:
    top = an_object({"label": TEXT, "index": COUNT, "probability": PROBABILITY})
    answer = {"model": TEXT, "version": TEXT}
    request = an_object(
        {},
        {
            "instances": list_of(
                {"description": 'Values of one row, {input: values}, or {"b64": "…"}.'}, minItems=1
            ),
            "inputs": {"description": "The values of the one tensor, or {input: values}."},
            "signature_name": _enum(*SIGNATURES),
        },
        additionalProperties=False,
        oneOf=[{"required": ["instances"]}, {"required": ["inputs"]}],
    )
    labels = an_object({**answer, "predictions": list_of(ref("Prediction"), minItems=1)})
    return {
        "PredictRequest": request,
        "Label": top,
        "Prediction": an_object({**top["properties"], "top": list_of(ref("Label"), minItems=1)}),
        "Labels": labels,
        "RawRows": an_object(
            {"predictions": list_of(ANY, minItems=1)},
            additionalProperties=False,
            description="One value for each row: that of the one output, or {output: value}.",
        ),
        "RawColumns": an_object(
            {"outputs": ANY},
            additionalProperties=False,
            description="The values of the one output, or {output: values}.",
        ),
        "Predictions": {"anyOf": [ref("Labels"), ref("RawRows"), ref("RawColumns")]},
    }


def _confidence() -> dict[str, Schema]:
    label = an_object({"label": TEXT, "index": COUNT, "p": _nullable(PROBABILITY)}, {"p_value": PROBABILITY})
    bare = {
        "label": _nullable(TEXT),
        "index": _nullable(COUNT),
        "confidence": _nullable(PROBABILITY),
        "confidence_raw": PROBABILITY,
        "margin": PROBABILITY,
        "entropy_bits": {"type": "number", "minimum": 0},
        "entropy_normalized": {"type": "number", "minimum": 0},
        "top": _nullable(list_of(label, minItems=1)),
    }
    calibration = {
        "status": _enum("valid", "partial", "missing"),
        "method": _nullable(TEXT),
        "temperature": _nullable(NUMBER),
        "n": _nullable(COUNT),
        "n_errors": _nullable(COUNT),
        "fitted_at": _nullable(TEXT),
    }
    content = {
        "schema": {"const": "confidence/1"},
        "model": TEXT,
        "version": TEXT,
        "bundle": an_object({"precision": TEXT, "sha256": TEXT}),
        "results": list_of(an_object(bare, _judgement()), minItems=1),
        "calibration": an_object(calibration),
        "timing_us": an_object({"inference": COUNT, "confidence": COUNT}),
    }
    return {"Confidences": an_object(content, {"assumptions": list_of(TEXT)})}


def _judgement() -> dict[str, Schema]:
    """What an answer tells beside, where the bundle holds evidence."""
    score = an_object({"value": NUMBER, "p_value": PROBABILITY})
    observed = {
        "low": PROBABILITY,
        "high": PROBABILITY,
        "n": COUNT,
        "observed_accuracy": _nullable(PROBABILITY),
        "ci95": list_of(PROBABILITY, minItems=2, maxItems=2),
    }
    labels = {
        "alpha": PROBABILITY,
        "labels": list_of(TEXT, minItems=1),
        "size": COUNT,
        "method": _enum("lac"),
        "scope": _enum("marginal", "label"),
        "n_calibration": COUNT,
        "forced_top1": {"type": "boolean"},
    }
    novelty = {
        "p_value": PROBABILITY,
        "flag": {"type": "boolean"},
        "alpha": PROBABILITY,
        "scores": an_object({"energy": score, "mds_l2": score}),
    }
    policy = {
        "id": TEXT,
        "target_risk": PROBABILITY,
        "delta": _nullable(PROBABILITY),
        "threshold": _nullable(PROBABILITY),
    }
    return {
        "bin": an_object(observed, description="How often test answers with such a confidence were right."),
        "prediction_set": _nullable(an_object(labels)),
        "credibility": PROBABILITY,
        "conformal_confidence": PROBABILITY,
        "ood": an_object(novelty),
        "accepted": {"type": "boolean"},
        "reasons": list_of(_enum("ood", "low_confidence", "no_threshold")),
        "advice": list_of(_enum("ambiguous_set")),
        "policy": an_object(policy),
    }


def _models() -> dict[str, Schema]:
    status = {
        "version": TEXT,
        "state": _enum("UNKNOWN", "START", "LOADING", "AVAILABLE", "UNLOADING", "END"),
        "status": an_object({"error_code": TEXT, "error_message": TEXT}),
    }
    model = {
        "name": TEXT,
        "ready": FLAG,
        "model_version_status": list_of(an_object(status), minItems=1),
        "version": TEXT,
        "description": TEXT,
        "task": _enum("classification", "tensors"),
        "labels": list_of(TEXT),
        "inputs": list_of(ref("TensorSpec"), minItems=1),
        "outputs": list_of(ref("TensorSpec"), minItems=1),
        "decoding": {"anyOf": [ref(each.__name__) for each in _DECODINGS]},
        "max_batch_size": {"type": "integer", "minimum": 1},
        "precision": _enum("int8", "fp32"),
        "provider": TEXT,
        "nodes": map_of(COUNT),
        "fallback": _nullable(TEXT),
        "bundle_sha256": TEXT,
        "graphs": map_of(ref("Graph")),
        "provenance": ref("Provenance"),
    }
    size = an_object({"size": {"type": "string", "pattern": "^(-1|[0-9]+)$"}, "name": TEXT})
    shape = an_object({"dim": list_of(size), "unknown_rank": FLAG})
    info = an_object({"dtype": _enum(*DTYPES.values()), "tensor_shape": shape, "name": TEXT})
    signature = an_object({"inputs": map_of(info), "outputs": map_of(info), "method_name": TEXT})
    signatures = an_object({"signature_def": map_of(signature)})
    return {
        "Models": an_object({"models": list_of(TEXT)}),
        "Model": an_object(model),
        "ModelSignatures": an_object(
            {
                "model_spec": an_object({"name": TEXT, "signature_name": TEXT, "version": TEXT}),
                "metadata": an_object({"signature_def": signatures}),
            }
        ),
    }


def _protocol() -> dict[str, Schema]:
    """Of the Open Inference Protocol."""
    head = {"name": TEXT, "datatype": _enum(*DATATYPES)}
    free = {"shape": list_of({"type": "integer", "minimum": -1})}
    whole = {"shape": list_of(COUNT)}
    parameters = {"parameters": map_of(ANY)}
    sized = {"data": ANY, **parameters}
    requested = an_object({"name": TEXT}, parameters)
    return {
        "Server": an_object({"name": TEXT, "version": TEXT, "extensions": list_of(TEXT)}),
        "ModelTensors": an_object(
            {
                "name": TEXT,
                "versions": list_of(TEXT, minItems=1),
                "platform": TEXT,
                "inputs": list_of(an_object({**head, **free})),
                "outputs": list_of(an_object({**head, **free}), minItems=1),
                "properties": map_of(TEXT),
            }
        ),
        "ModelReady": an_object({"name": TEXT, "ready": FLAG}),
        "ModelConfig": an_object(
            {
                "name": TEXT,
                "platform": TEXT,
                "backend": TEXT,
                "max_batch_size": COUNT,
                "input": list_of(map_of(ANY)),
                "output": list_of(map_of(ANY), minItems=1),
            }
        ),
        "ModelStatistics": an_object({"model_stats": list_of(an_object({"name": TEXT, "version": TEXT}))}),
        "InferRequest": an_object(
            {"inputs": list_of(an_object({**head, **whole}, sized), minItems=1)},
            {"id": TEXT, "outputs": list_of(requested), **parameters},
        ),
        "InferResponse": an_object(
            {
                "model_name": TEXT,
                "model_version": TEXT,
                "outputs": list_of(an_object({**head, **whole}, sized), minItems=1),
            },
            {"id": TEXT, **parameters},
        ),
        "RepositoryIndex": list_of(an_object({"name": TEXT, "version": TEXT, "state": TEXT, "reason": TEXT})),
    }


def _schemas() -> dict[str, Schema]:
    _, found = models_json_schema(
        [(model, "serialization") for model in _MODELS], ref_template="#/components/schemas/{model}"
    )
    return {
        **found["$defs"], **_failures(), **_predictions(), **_confidence(), **_models(), **_protocol()
    }  # fmt: skip


SCHEMAS: dict[str, Schema] = _schemas()
