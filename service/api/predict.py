"""The calls that run a model: `:predict` and `:confidence`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from bundle.answer import Answer
from bundle.confidence import RowConfidence
from bundle.decoding import Limits
from bundle.manifest import Manifest
from bundle.predictor import Predictor
from service.api import paths  # noqa: F401 - the routes below use its convertor
from service.api.answering import answer
from service.api.calls import Question, Reply, Sent
from service.api.description import RUNS_A_MODEL
from service.api.inputs import JSON, Inputs, check_media_type, is_quick, read_rows
from service.api.outputs import render_confidence, render_predictions
from service.api.problems import refuse
from service.registry import Served, Which

router = APIRouter()

Render = Callable[[Predictor, Sequence[RowConfidence], int], dict[str, Any]]


class Parameters(BaseModel):
    """The query parameters of a call."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    top_k: int = Field(default=3, ge=1)
    """How many labels `top` lists, most probable first; more than there are gives all."""
    invert: bool = False
    """Swap dark and light of an image before it is padded; never guessed."""


@dataclass(frozen=True)
class Classify:
    """The call `:predict` or `:confidence`: media or numbers to labels; see `service.api.calls.Call`."""

    render: Render
    parameters: Parameters

    def check_media_type(self, manifest: Manifest, media_type: str) -> None:
        """Refuse what is neither JSON nor a tensor nor one of the model's media."""
        check_media_type(manifest, media_type)

    def is_quick(self, sent: Sent) -> bool:
        """Whether the body is small and not of a kind that decodes to much more."""
        return is_quick(self._inputs(sent))

    def read(self, served: Served, sent: Sent, limits: Limits) -> Question:
        """Turn instances, media or a tensor into rows."""
        predictor = served.predictor
        rows = read_rows(predictor.bundle.manifest, self._inputs(sent), limits)

        def reply(answers: list[Answer]) -> Reply:
            confidences = [answer.confidence for answer in answers]
            content = self.render(predictor, confidences, self.parameters.top_k)
            return Reply(orjson.dumps(content), JSON)

        return Question(rows, reply)

    def refuse(self, error: Exception) -> Response:
        """Return a problem."""
        return refuse(error)

    def _inputs(self, sent: Sent) -> Inputs:
        return Inputs(sent.body, sent.media_type, sent.shape, self.parameters.invert, sent.expires_s)


@router.post("/v1/models/{name:model}:predict", openapi_extra=RUNS_A_MODEL)
async def predict(request: Request, name: str, parameters: Annotated[Parameters, Query()]) -> Response:
    """Classify one or more inputs.

    The body is JSON `{"instances": […]}` (nested numbers, or `{"b64": "…"}` for media), a media file as it
    is (`image/png`, `image/jpeg`, `audio/wav`, as the model takes), or a little-endian tensor as
    `application/octet-stream`, with its shape in `X-Tensor-Shape` where it is not plain.
    """
    return await answer(request, Classify(render_predictions, parameters), Which(name))


@router.post("/v1/models/{name:model}/versions/{version:model}:predict", openapi_extra=RUNS_A_MODEL)
async def predict_with_version(
    request: Request, name: str, version: str, parameters: Annotated[Parameters, Query()]
) -> Response:
    """Classify with one version of a model."""
    return await answer(request, Classify(render_predictions, parameters), Which(name, version))


@router.post("/v1/models/{name:model}:confidence", openapi_extra=RUNS_A_MODEL)
async def confidence(request: Request, name: str, parameters: Annotated[Parameters, Query()]) -> Response:
    """Classify one or more inputs and say how sure the answer is, and how that is known.

    Takes the same bodies as `:predict`.
    """
    return await answer(request, Classify(render_confidence, parameters), Which(name))


@router.post("/v1/models/{name:model}/versions/{version:model}:confidence", openapi_extra=RUNS_A_MODEL)
async def confidence_with_version(
    request: Request, name: str, version: str, parameters: Annotated[Parameters, Query()]
) -> Response:
    """Classify with one version of a model and say how sure the answer is."""
    return await answer(request, Classify(render_confidence, parameters), Which(name, version))
