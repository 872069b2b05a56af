"""The JSON that goes over the wire, as the schemas of the OpenAPI document (JSON Schema 2020-12)."""

from __future__ import annotations

from pydantic.json_schema import models_json_schema

from bundle.datatypes import DATATYPES
from bundle.manifest import Graph, Provenance, TensorSpec
from bundle.media import AudioDecoding, ImageDecoding, TensorDecoding, TextDecoding
from bundle.serving import Serving
from service.api.instances import SIGNATURES
from service.api.monitoring import MOST_AT_ONCE
from service.api.review_schemas import review_schemas
from service.api.schema_parts import (
    ANY,
    COUNT,
    FLAG,
    NUMBER,
    PROBABILITY,
    TEXT,
    Schema,
    an_object,
    enum,
    list_of,
    map_of,
    nullable,
    ref,
)
from service.api.signatures import DTYPES

_DECODINGS = (AudioDecoding, ImageDecoding, TensorDecoding, TextDecoding)
_MODELS = (Graph, Provenance, Serving, TensorSpec, *_DECODINGS)


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
            "signature_name": enum(*SIGNATURES),
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
    label = an_object({"label": TEXT, "index": COUNT, "p": nullable(PROBABILITY)}, {"p_value": PROBABILITY})
    bare = {
        "label": nullable(TEXT),
        "index": nullable(COUNT),
        "confidence": nullable(PROBABILITY),
        "confidence_raw": PROBABILITY,
        "margin": PROBABILITY,
        "entropy_bits": {"type": "number", "minimum": 0},
        "entropy_normalized": {"type": "number", "minimum": 0},
        "top": nullable(list_of(label, minItems=1)),
        "accepted": {"type": "boolean"},
        "reasons": list_of(enum("ood", "low_confidence", "no_threshold", "no_calibration")),
    }
    calibration = {
        "status": enum("valid", "stale", "partial", "missing"),
        "method": nullable(TEXT),
        "temperature": nullable(NUMBER),
        "n": nullable(COUNT),
        "n_errors": nullable(COUNT),
        "fitted_at": nullable(TEXT),
    }
    content = {
        "schema": {"const": "confidence/1"},
        "model": TEXT,
        "version": TEXT,
        "bundle": an_object({"precision": TEXT, "sha256": TEXT}),
        "results": list_of(an_object(bare, {"prediction_id": TEXT, **_judgement()}), minItems=1),
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
        "observed_accuracy": nullable(PROBABILITY),
        "ci95": list_of(PROBABILITY, minItems=2, maxItems=2),
    }
    labels = {
        "alpha": PROBABILITY,
        "labels": list_of(TEXT, minItems=1),
        "size": COUNT,
        "method": enum("lac"),
        "scope": enum("marginal", "label"),
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
        "delta": nullable(PROBABILITY),
        "threshold": nullable(PROBABILITY),
    }
    return {
        "bin": an_object(observed, description="How often test answers with such a confidence were right."),
        "prediction_set": nullable(an_object(labels)),
        "credibility": PROBABILITY,
        "conformal_confidence": PROBABILITY,
        "ood": an_object(novelty),
        "advice": list_of(enum("ambiguous_set", "stale_calibration")),
        "policy": an_object(policy),
    }


def _monitoring() -> dict[str, Schema]:
    """Of feedback, and of what is known of all answers."""
    one = an_object(
        {"prediction_id": TEXT, "label": {"anyOf": [TEXT, COUNT], "description": "Its name, or its index."}},
        additionalProperties=False,
    )
    many = an_object(
        {"feedback": list_of(one, minItems=1, maxItems=MOST_AT_ONCE)}, additionalProperties=False
    )
    outcomes = ("counted", "forged", "wrong_model", "wrong_label", "expired", "not_served", "repeated")
    result = an_object({"outcome": enum(*outcomes)}, {"correct": FLAG, "error": TEXT})
    interval = list_of(PROBABILITY, minItems=2, maxItems=2)
    test = {"signal": TEXT, "test": TEXT, "psi": NUMBER, "p_value": PROBABILITY, "alarm": FLAG}
    window = {
        "rows": COUNT,
        "tests": list_of(an_object(test), minItems=1),
        "accuracy_estimated": PROBABILITY,
        "label_priors": map_of(PROBABILITY),
    }
    coverage = {"alpha": PROBABILITY, "n": COUNT, "coverage": PROBABILITY, "band95": interval}
    accepted = {
        "n": COUNT,
        "wrong": COUNT,
        "risk": nullable(PROBABILITY),
        "risk_ci95": interval,
        "target_risk": PROBABILITY,
    }
    figures = {
        "n": COUNT,
        "accuracy": PROBABILITY,
        "accuracy_ci95": interval,
        "ece": PROBABILITY,
        "ece_null95": PROBABILITY,
        "coverage": list_of(an_object(coverage)),
        "accepted": nullable(an_object(accepted)),
    }
    version = {
        "version": TEXT,
        "precision": TEXT,
        "processes": COUNT,
        "stale_processes": COUNT,
        "rows": COUNT,
        "window": nullable(an_object(window)),
        "feedback": nullable(an_object(figures)),
    }
    results = {"model": TEXT, "counted": COUNT, "refused": COUNT, "results": list_of(result, minItems=1)}
    return {
        "FeedbackRequest": {"anyOf": [one, many]},
        "FeedbackResults": an_object(results),
        "MonitorReport": an_object({"model": TEXT, "versions": list_of(an_object(version))}),
    }


def _report() -> Schema:
    """Of an evaluation report, as far as every one has it."""
    bound = nullable(NUMBER)
    figure = an_object({"name": TEXT, "value": bound, "low": bound, "high": bound, "held": nullable(FLAG)})
    measures = {
        "sha256": TEXT,
        "temperature": NUMBER,
        "n": COUNT,
        "accuracy": PROBABILITY,
        "nll": NUMBER,
        "brier": NUMBER,
        "calibration": map_of(ANY),
        "selection": map_of(ANY),
        "sets": list_of(map_of(ANY)),
        "novelty": nullable(map_of(ANY)),
        "confusion": list_of(list_of(COUNT)),
        "slices": map_of(list_of(map_of(ANY))),
    }
    content = {
        "schema_version": {"const": 1},
        "model": TEXT,
        "version": TEXT,
        "splits": map_of(COUNT),
        "graphs": map_of(an_object(measures)),
        "comparison": nullable(map_of(ANY)),
        "figures": list_of(figure),
        "held": nullable(FLAG),
    }
    return an_object(content, description="The evaluation report of a bundle; docs/reports.md tells more.")


def _models() -> dict[str, Schema]:
    status = {
        "version": TEXT,
        "state": enum("UNKNOWN", "START", "LOADING", "AVAILABLE", "UNLOADING", "END"),
        "status": an_object({"error_code": TEXT, "error_message": TEXT}),
    }
    model = {
        "name": TEXT,
        "ready": FLAG,
        "model_version_status": list_of(an_object(status), minItems=1),
        "version": TEXT,
        "description": TEXT,
        "task": enum("classification", "tensors"),
        "labels": list_of(TEXT),
        "inputs": list_of(ref("TensorSpec"), minItems=1),
        "outputs": list_of(ref("TensorSpec"), minItems=1),
        "decoding": {"anyOf": [ref(each.__name__) for each in _DECODINGS]},
        "max_batch_size": {"type": "integer", "minimum": 1},
        "precision": enum("int8", "fp32"),
        "provider": TEXT,
        "nodes": map_of(COUNT),
        "fallback": nullable(TEXT),
        "bundle_sha256": TEXT,
        "graphs": map_of(ref("Graph")),
        "provenance": ref("Provenance"),
    }
    size = an_object({"size": {"type": "string", "pattern": "^(-1|[0-9]+)$"}, "name": TEXT})
    shape = an_object({"dim": list_of(size), "unknown_rank": FLAG})
    info = an_object({"dtype": enum(*DTYPES.values()), "tensor_shape": shape, "name": TEXT})
    signature = an_object({"inputs": map_of(info), "outputs": map_of(info), "method_name": TEXT})
    signatures = an_object({"signature_def": map_of(signature)})
    return {
        "Models": an_object({"models": list_of(TEXT)}),
        "Model": an_object(model),
        "Report": _report(),
        "ModelSignatures": an_object(
            {
                "model_spec": an_object({"name": TEXT, "signature_name": TEXT, "version": TEXT}),
                "metadata": an_object({"signature_def": signatures}),
            }
        ),
    }


def _protocol() -> dict[str, Schema]:
    """Of the Open Inference Protocol."""
    head = {"name": TEXT, "datatype": enum(*DATATYPES)}
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
        **found["$defs"], **_failures(), **_predictions(), **_confidence(), **_monitoring(), **_models(),
        **_protocol(), **review_schemas(),
    }  # fmt: skip


SCHEMAS: dict[str, Schema] = _schemas()
