"""The calls of the Open Inference Protocol that tell of server and models, or change what is served."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message

from service.control import Control
from service.errors import ModelNotReadyError, UnknownModelError
from service.oip.description import model_config, model_metadata, server_metadata
from service.oip.statistics import statistics
from service.registry import Registry, Served, Which
from service.rpc import open_inference_pb2 as pb
from service.rpc.answering import Caller

Response = TypeVar("Response", bound=Message)


class InferenceService:
    """Answers everything but inferences.

    Args:
        registry: what is served.
        control: what may change it, and knows what other processes do.
        is_draining: whether a stop was asked for.
    """

    def __init__(self, registry: Registry, control: Control, is_draining: Callable[[], bool]) -> None:
        self._registry = registry
        self._control = control
        self._is_draining = is_draining

    async def server_live(self, caller: Caller, request: pb.ServerLiveRequest) -> pb.ServerLiveResponse:
        """Answer true as long as the process lives."""
        return pb.ServerLiveResponse(live=True)

    async def server_ready(self, caller: Caller, request: pb.ServerReadyRequest) -> pb.ServerReadyResponse:
        """Answer true until a stop was asked for."""
        return pb.ServerReadyResponse(ready=not self._is_draining())

    async def model_ready(self, caller: Caller, request: pb.ModelReadyRequest) -> pb.ModelReadyResponse:
        """Answer whether a model is served; one that does not exist is not, as in Triton."""
        try:
            self._choose(caller, request.name, request.version)
        except (UnknownModelError, ModelNotReadyError):
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=True)

    async def server_metadata(
        self, caller: Caller, request: pb.ServerMetadataRequest
    ) -> pb.ServerMetadataResponse:
        """Tell the server's name, version and extensions."""
        return _message(server_metadata(), pb.ServerMetadataResponse())

    async def model_metadata(
        self, caller: Caller, request: pb.ModelMetadataRequest
    ) -> pb.ModelMetadataResponse:
        """Tell a model's inputs and outputs."""
        served = self._choose(caller, request.name, request.version)
        versions = [served] if request.version else self._registry.versions(request.name)
        metadata = model_metadata(served, [each.version for each in versions])
        return _message(metadata, pb.ModelMetadataResponse())

    async def model_config(self, caller: Caller, request: pb.ModelConfigRequest) -> pb.ModelConfigResponse:
        """Tell a model's configuration in the form of Triton's."""
        served = self._choose(caller, request.name, request.version)
        return _message({"config": model_config(served)}, pb.ModelConfigResponse())

    async def model_statistics(
        self, caller: Caller, request: pb.ModelStatisticsRequest
    ) -> pb.ModelStatisticsResponse:
        """Tell what was done since the models were loaded."""
        done = await statistics(self._control, self._registry, request.name or None, request.version or None)
        return _message(done, pb.ModelStatisticsResponse())

    async def repository_index(
        self, caller: Caller, request: pb.RepositoryIndexRequest
    ) -> pb.RepositoryIndexResponse:
        """Tell every model of the repository and its state."""
        models = await self._control.index(request.ready)
        return _message({"models": models}, pb.RepositoryIndexResponse())

    async def repository_model_load(
        self, caller: Caller, request: pb.RepositoryModelLoadRequest
    ) -> pb.RepositoryModelLoadResponse:
        """Load or reload a model."""
        await self._control.load(request.model_name, _values(request.parameters))
        return pb.RepositoryModelLoadResponse()

    async def repository_model_unload(
        self, caller: Caller, request: pb.RepositoryModelUnloadRequest
    ) -> pb.RepositoryModelUnloadResponse:
        """Take a model out of service."""
        await self._control.unload(request.model_name, _values(request.parameters))
        return pb.RepositoryModelUnloadResponse()

    def _choose(self, caller: Caller, name: str, version: str) -> Served:
        served = self._registry.choose(Which(name, version or None), caller.sent_id)
        caller.record.model, caller.record.version = served.name, served.version
        return served


def _message(content: dict[str, Any], message: Response) -> Response:
    """Fill a message from its JSON. That may have more: other clients' messages differ in what they add."""
    return ParseDict(content, message, ignore_unknown_fields=True)


def _values(parameters: Mapping[str, pb.ModelRepositoryParameter]) -> dict[str, Any]:
    """Return name -> value of the parameters that have one."""
    kinds = {name: parameter.WhichOneof("parameter_choice") for name, parameter in parameters.items()}
    return {name: getattr(parameters[name], kind) for name, kind in kinds.items() if kind is not None}
