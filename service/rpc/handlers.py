"""The table from the names of calls to what answers them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import Message
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_reflection.v1alpha import reflection
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest

from service.api_keys import ApiKeys, Role
from service.control import Control
from service.errors import RoleError, UnknownKeyError
from service.ledger import Ledger
from service.registry import Registry
from service.rpc import open_inference_pb2 as pb
from service.rpc.answering import Answering, Caller, Context, InFlight
from service.rpc.failures import StoppingError, refuse
from service.rpc.health import Health
from service.rpc.inference import Inference
from service.rpc.inference_service import InferenceService
from service.settings import Settings

INFERENCE = "inference.GRPCInferenceService"
HEALTH = "grpc.health.v1.Health"
# Both names mean the same messages. Tools ask for the first one, older ones for the second.
REFLECTION = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")

Handlers: TypeAlias = "dict[str, grpc.RpcMethodHandler[Any, Any]]"


@dataclass(frozen=True)
class Backend:
    """What the calls need of the process that answers them.

    Attributes:
        decoders: threads that read large messages.
        is_draining: whether a stop was asked for.
        keys: that callers need, if any.
    """

    settings: Settings
    registry: Registry
    ledger: Ledger
    decoders: Executor
    control: Control
    is_draining: Callable[[], bool]
    keys: ApiKeys


def handlers_of(backend: Backend, in_flight: InFlight) -> dict[str, Handlers]:
    """Return service -> call -> handler of all that the server answers."""
    answering = Answering(backend.ledger, in_flight, backend.keys)
    health = Health(backend.registry, frozenset({"", INFERENCE}), backend.is_draining)
    reflect = reflection.aio.ReflectionServicer((INFERENCE, HEALTH, *REFLECTION)).ServerReflectionInfo
    reflecting = grpc.stream_stream_rpc_method_handler(
        reflect, ServerReflectionRequest.FromString, _serialize
    )
    return {
        INFERENCE: _inference_handlers(backend, answering),
        HEALTH: {
            "Check": _unary(answering, f"/{HEALTH}/Check", HealthCheckRequest, health.check, None),
            "Watch": grpc.unary_stream_rpc_method_handler(
                health.watch, HealthCheckRequest.FromString, _serialize
            ),
        },
        **{service: {"ServerReflectionInfo": reflecting} for service in REFLECTION},
    }


def _inference_handlers(backend: Backend, answering: Answering) -> Handlers:
    inference = Inference(backend.settings, backend.registry, backend.decoders)
    service = InferenceService(backend.registry, backend.control, backend.is_draining)
    calls: dict[str, tuple[type[Message], Callable[[Caller, Any], Awaitable[Message]], Role | None]] = {
        "ServerLive": (pb.ServerLiveRequest, service.server_live, None),
        "ServerReady": (pb.ServerReadyRequest, service.server_ready, None),
        "ModelReady": (pb.ModelReadyRequest, service.model_ready, "predict"),
        "ServerMetadata": (pb.ServerMetadataRequest, service.server_metadata, "predict"),
        "ModelMetadata": (pb.ModelMetadataRequest, service.model_metadata, "predict"),
        "ModelInfer": (pb.ModelInferRequest, inference.infer, "predict"),
        "ModelConfig": (pb.ModelConfigRequest, service.model_config, "predict"),
        "ModelStatistics": (pb.ModelStatisticsRequest, service.model_statistics, "predict"),
        "RepositoryIndex": (pb.RepositoryIndexRequest, service.repository_index, "admin"),
        "RepositoryModelLoad": (pb.RepositoryModelLoadRequest, service.repository_model_load, "admin"),
        "RepositoryModelUnload": (pb.RepositoryModelUnloadRequest, service.repository_model_unload, "admin"),
    }
    handlers = {
        name: _unary(answering, f"/{INFERENCE}/{name}", kind, handle, role)
        for name, (kind, handle, role) in calls.items()
    }
    handlers["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(
        partial(_stream, answering, inference), None, _serialize
    )
    return handlers


def _unary(
    answering: Answering,
    path: str,
    kind: type[Message],
    handle: Callable[[Caller, Any], Awaitable[Message]],
    role: Role | None,
) -> grpc.RpcMethodHandler[Any, Any]:
    """The message is parsed by `answering`, which tells the caller when it cannot be."""
    return grpc.unary_unary_rpc_method_handler(
        partial(answering.answer, path, kind, handle, role), None, _serialize
    )


async def _stream(
    answering: Answering, inference: Inference, contents: AsyncIterator[bytes], context: Context
) -> AsyncIterator[pb.ModelStreamInferResponse]:
    """Answer each request of a stream before the next one is looked at; a failure leaves the stream open."""
    path = f"/{INFERENCE}/ModelStreamInfer"
    async for content in contents:
        if answering.in_flight.closed:
            await context.abort(*refuse(StoppingError()))
        with answering.in_flight.counting():
            try:
                answer = await answering.answer_part(
                    path, pb.ModelInferRequest, inference.infer, "predict", content, context
                )
            except (UnknownKeyError, RoleError) as error:  # nor may any message that follows
                await context.abort(*refuse(error))
                raise AssertionError("abort has not raised") from error
            if isinstance(answer, str):
                yield pb.ModelStreamInferResponse(error_message=answer)
            else:
                # There are no further ones for this request, for which some of Triton's clients wait.
                answer.parameters["triton_final_response"].bool_param = True
                yield pb.ModelStreamInferResponse(infer_response=answer)


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()
