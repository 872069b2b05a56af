"""The calls that run a model: `:predict` and `:confidence`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from bundle.answer import Answer
from bundle.decoding import Limits
from bundle.errors import InputError
from bundle.manifest import Manifest
from bundle.predictor import Predictor
from service.api import paths  # noqa: F401 - the routes below use its convertor
from service.api.answering import answer
from service.api.calls import Question, Reply, Sent
from service.api.confidence import Policy, Scope, check_policy, render_confidence
from service.api.inputs import JSON, check_media_type, is_quick, read_asked
from service.api.instances import RAW_SIGNATURE, Asked
from service.api.outputs import render_predictions
from service.api.problems import refuse
from service.api.raw import render_columns, render_rows
from service.registry import Served, Which

router = APIRouter()


class Parameters(BaseModel):
    """The query parameters of a call."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    top_k: int = Field(default=3, ge=1)
    """How many labels `top` lists, most probable first; more than there are gives all."""
    invert: bool = False
    """Swap dark and light of an image before it is padded; never guessed."""


class ConfidenceParameters(Parameters):
    """The query parameters of `:confidence`."""

    alpha: float = Field(default=0.05, gt=0, lt=1)
    """The prediction set misses the right label with at most this probability."""
    target_risk: float | None = Field(default=None, gt=0, lt=1)
    """Share of accepted answers that may be wrong; by default what the bundle names."""
    scope: Scope = "marginal"
    """What p-values and sets are made of: "marginal", all of the conformal split; "label", for each label its
    own inputs, so that the promise holds for each label by itself. Where a label has too few, all are taken,
    and the answer says so."""
    abstain: Literal["flag", "withhold"] = "flag"
    """What becomes of the labels of answers that are not accepted."""

    @property
    def policy(self) -> Policy:
        """What is asked of each answer."""
        return Policy(self.alpha, self.target_risk, self.abstain == "withhold", self.top_k, self.scope)


@dataclass(frozen=True)
class Predict:
    """The call `:predict`: media or values to labels or to values; see `service.api.calls.Call`."""

    parameters: Parameters

    def check_media_type(self, manifest: Manifest, media_type: str) -> None:
        """Refuse what is neither JSON nor a tensor nor one of the model's media."""
        check_media_type(manifest, media_type)

    def is_quick(self, sent: Sent) -> bool:
        """Whether the body is small and not of a kind that decodes to much more."""
        return is_quick(sent)

    def read(self, served: Served, sent: Sent, limits: Limits) -> Question:
        """Turn instances, tensors or media into rows."""
        predictor = served.predictor
        manifest = predictor.bundle.manifest
        asked = read_asked(manifest, sent, limits, invert=self.parameters.invert)
        self._check(predictor, asked)

        def reply(answers: list[Answer]) -> Reply:
            content = self._render(served, asked, answers)
            return Reply(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY), JSON)

        return Question(asked.rows, reply)

    def refuse(self, error: Exception) -> Response:
        """Return a problem."""
        return refuse(error)

    def _check(self, predictor: Predictor, asked: Asked) -> None:
        """Refuse what is well-formed but cannot be answered: nothing here."""

    def _render(self, served: Served, asked: Asked, answers: Sequence[Answer]) -> dict[str, Any]:
        predictor = served.predictor
        manifest = predictor.bundle.manifest
        if manifest.task != "classification" or asked.signature == RAW_SIGNATURE:
            return (render_columns if asked.columnar else render_rows)(manifest, answers)
        return render_predictions(predictor, [each.confidence for each in answers], self.parameters.top_k)


@dataclass(frozen=True)
class Confidence(Predict):
    """The call `:confidence`: the same to labels, and how sure that is."""

    parameters: ConfidenceParameters

    def _check(self, predictor: Predictor, asked: Asked) -> None:
        manifest = predictor.bundle.manifest
        if manifest.task != "classification":
            raise InputError(
                f"{manifest.name} classifies nothing, so there is no confidence to tell; use :predict"
            )
        if asked.signature == RAW_SIGNATURE:
            raise InputError(f"the signature {RAW_SIGNATURE!r} is for :predict alone")
        check_policy(predictor, self.parameters.policy)

    def _render(self, served: Served, asked: Asked, answers: Sequence[Answer]) -> dict[str, Any]:
        return render_confidence(served.predictor, answers, self.parameters.policy, served.monitored)


@router.post("/v1/models/{name:model}:predict")
async def predict(request: Request, name: str, parameters: Annotated[Parameters, Query()]) -> Response:
    """Answer one or more inputs: with labels where the model classifies, with its tensors where it does not.

    The body is JSON with `instances` (one value for each row: nested lists in the shape of one row, an
    object `{input: value}`, or `{"b64": "…"}` for media and texts) or with `inputs` (whole tensors), a media
    file as it is, several as a form, or a little-endian tensor as `application/octet-stream`. The
    `signature_name` "raw" gives the values of tensors also for a model that classifies.
    """
    return await answer(request, Predict(parameters), Which(name))


@router.post("/v1/models/{name:model}/versions/{version:model}:predict")
async def predict_with_version(
    request: Request, name: str, version: str, parameters: Annotated[Parameters, Query()]
) -> Response:
    """Answer with one version of a model."""
    return await answer(request, Predict(parameters), Which(name, version))


@router.post("/v1/models/{name:model}/labels/{alias:model}:predict")
async def predict_with_alias(
    request: Request, name: str, alias: str, parameters: Annotated[Parameters, Query()]
) -> Response:
    """Answer with the version of a model that an alias stands for."""
    return await answer(request, Predict(parameters), Which(name, alias=alias))


@router.post("/v1/models/{name:model}:confidence")
async def confidence(
    request: Request, name: str, parameters: Annotated[ConfidenceParameters, Query()]
) -> Response:
    """Classify one or more inputs and say how sure the answer is, and how that is known.

    Takes the same bodies as `:predict`.
    """
    return await answer(request, Confidence(parameters), Which(name))


@router.post("/v1/models/{name:model}/versions/{version:model}:confidence")
async def confidence_with_version(
    request: Request, name: str, version: str, parameters: Annotated[ConfidenceParameters, Query()]
) -> Response:
    """Classify with one version of a model and say how sure the answer is."""
    return await answer(request, Confidence(parameters), Which(name, version))


@router.post("/v1/models/{name:model}/labels/{alias:model}:confidence")
async def confidence_with_alias(
    request: Request, name: str, alias: str, parameters: Annotated[ConfidenceParameters, Query()]
) -> Response:
    """Classify with the version of a model that an alias stands for and say how sure the answer is."""
    return await answer(request, Confidence(parameters), Which(name, alias=alias))
