"""The call `infer` of the Open Inference Protocol: tensors in, tensors out."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from bundle.answer import Answer
from bundle.decoding import Limits
from bundle.manifest import Manifest
from service.api import paths  # noqa: F401 - the routes below use its convertor
from service.api.answering import answer
from service.api.calls import Question, Reply, Sent
from service.api.inputs import INLINE_BYTES, JSON, OCTETS
from service.api.problems import refuse
from service.api.tensors import HEADER_LENGTH, parse_document, write_response
from service.oip.infer import read_rows, respond
from service.registry import Served, Which

router = APIRouter()


class Infer:
    """See `service.api.calls.Call`. There is but one kind: its body says everything."""

    def check_media_type(self, manifest: Manifest, media_type: str) -> None:
        """Take any: stock clients name a wrong one or none."""

    def is_quick(self, sent: Sent) -> bool:
        """Whether the body is small."""
        return len(sent.body) <= INLINE_BYTES

    def read(self, served: Served, sent: Sent, limits: Limits) -> Question:
        """Turn the tensors of the request into rows."""
        manifest = served.predictor.bundle.manifest
        request, wishes = parse_document(manifest, sent.body, sent.header_length)
        rows = read_rows(manifest, request, limits)

        def reply(answers: list[Answer]) -> Reply:
            body, length = write_response(respond(manifest, request, answers), wishes)
            if length is None:
                return Reply(body, JSON)
            return Reply(body, OCTETS, ((HEADER_LENGTH, str(length)),))

        return Question(rows, reply, request.priority, request.timeout_s)

    def refuse(self, error: Exception) -> Response:
        """Return an error as the protocol has it."""
        return refuse(error, "error")


INFER = Infer()


@router.post("/v2/models/{name:model}/infer")
async def infer(request: Request, name: str) -> Response:
    """Run a model on tensors, as the Open Inference Protocol has it, with its binary extension."""
    return await answer(request, INFER, Which(name))


@router.post("/v2/models/{name:model}/versions/{version:model}/infer")
async def infer_with_version(request: Request, name: str, version: str) -> Response:
    """Run one version of a model on tensors."""
    return await answer(request, INFER, Which(name, version))
