"""What becomes of answers: callers tell which were right, and ask what is known of all of them together."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, ValidationError
from starlette.responses import Response

from bundle.errors import InputError
from service.api import paths  # noqa: F401 - the routes below use its convertor
from service.api.body import read_body
from service.api.inputs import JSON
from service.api.origin import refuse_foreign_pages
from service.api.requests import record_of
from service.control import Control
from service.monitoring.monitor import COUNTED, Feedback, Outcome
from service.monitoring.report import tell_together
from service.registry import Registry
from service.settings import Settings

router = APIRouter()

# Under which name a process reports what it knows.
REPORT = "monitor"
MOST_AT_ONCE = 1_000
# Room for so many.
_LARGEST_BYTES = 2 * 1024 * 1024
# After so many, others get their turn on the event loop.
_AT_A_TIME = 50


class OneFeedback(BaseModel):
    """The right label of one answer."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    prediction_id: StrictStr
    """That `:confidence` gave with the answer."""
    label: StrictStr | StrictInt
    """The right label: its name, or its index."""


class ManyFeedbacks(BaseModel):
    """The right labels of several answers."""

    model_config = ConfigDict(extra="forbid")

    feedback: Annotated[list[OneFeedback], Field(min_length=1, max_length=MOST_AT_ONCE)]


@router.post("/v1/models/{name:model}:feedback", dependencies=[Depends(refuse_foreign_pages)])
async def feedback(request: Request, name: str) -> Response:
    """Tell the right label of an answer, or of several.

    One that cannot be counted is refused. Of several, those that can be are counted, and what became of each
    is told.
    """
    registry: Registry = request.app.state.registry
    settings: Settings = request.app.state.settings
    served = {each.version: each.monitored for each in registry.versions(name)}
    record_of(request.scope).model = name
    body = await read_body(request, min(settings.max_body_bytes, _LARGEST_BYTES), settings.body_timeout_s)
    sent, is_one = _parse(body)
    monitor = registry.resources.monitor
    if monitor is None:
        raise InputError("no feedback is taken here")
    outcomes = []
    for number, each in enumerate(sent, 1):
        outcomes.append(await monitor.take(name, served, Feedback(each.prediction_id, each.label)))
        if not number % _AT_A_TIME:
            await asyncio.sleep(0)
    if is_one and outcomes[0].error is not None:
        raise outcomes[0].error
    counted = sum(each.name == COUNTED for each in outcomes)
    content = {
        "model": name,
        "counted": counted,
        "refused": len(outcomes) - counted,
        "results": [_describe(each) for each in outcomes],
    }
    return Response(orjson.dumps(content), media_type=JSON)


@router.get("/v1/models/{name:model}/monitor")
async def monitor(request: Request, name: str) -> Response:
    """Tell how the answers of each version are spread, whether that has changed, and how right they are.

    It is of all processes that share the port, since each was started.
    """
    registry: Registry = request.app.state.registry
    control: Control = request.app.state.control
    versions = registry.versions(name)
    record_of(request.scope).model = name
    reports = await control.gather(REPORT)
    found = []
    for served in versions:
        ours = [each[name][served.version] for each in reports if served.version in each.get(name, {})]
        if ours:
            predictor = served.predictor
            labels = predictor.bundle.manifest.labels
            told = tell_together(ours, labels, predictor.evidence)
            found.append({"version": served.version, "precision": predictor.precision, **told})
    return Response(orjson.dumps({"model": name, "versions": found}), media_type=JSON)


def report(registry: Registry) -> dict[str, dict[str, Any]]:
    """Return name -> version -> what this process knows of its answers, where they are monitored."""
    return {
        name: {
            version: served.monitored.report()
            for version, served in model.versions.items()
            if served.monitored is not None
        }
        for name, model in registry.models().items()
    }


def add_report(control: Control, registry: Registry) -> None:
    """Have other processes, too, told what this one knows."""
    control.reports[REPORT] = partial(report, registry)


def _parse(body: bytes) -> tuple[list[OneFeedback], bool]:
    """Return what a body tells, and whether that is one alone."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InputError(f"the body is not JSON: {error}") from error
    try:
        if isinstance(document, Mapping) and "feedback" in document:
            return ManyFeedbacks.model_validate(document).feedback, False
        return [OneFeedback.model_validate(document)], True
    except ValidationError as error:
        raise InputError(_complain(error)) from error


def _complain(error: ValidationError) -> str:
    """Say in one line what is wrong with a body."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"] if part not in ("str", "int"))
    if where.endswith("label") and first["type"] != "missing":
        return f"{where}: must be the name of a label, as text, or its index"
    if first["type"] == "model_type":
        return f"{where or 'the body'}: must be an object with prediction_id and label"
    return f"{where or 'the body'}: {first['msg']}"


def _describe(outcome: Outcome) -> dict[str, Any]:
    if outcome.error is not None:
        return {"outcome": outcome.name, "error": str(outcome.error)}
    return {"outcome": outcome.name, "correct": outcome.correct}
