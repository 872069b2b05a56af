"""The calls that run a model: the same way through validation, queue and answer as those of REST."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Executor

from bundle.answer import Answer
from bundle.rows import Row
from service.errors import DeadlineError
from service.oip.infer import read_rows, respond
from service.oip.messages import InferRequest
from service.registry import Registry, Served, Which
from service.rpc.answering import Caller
from service.rpc.open_inference_pb2 import ModelInferRequest, ModelInferResponse
from service.rpc.tensors import parse_request, timeout_of, write_response
from service.settings import Settings

# Reading a larger message would keep the event loop from others for too long.
_INLINE_BYTES = 64 * 1024


class Inference:
    """Runs models.

    Args:
        settings: limit the rows of a call and the time that it may take.
        registry: what is served.
        decoders: the threads that read large messages.
    """

    def __init__(self, settings: Settings, registry: Registry, decoders: Executor) -> None:
        self._settings = settings
        self._registry = registry
        self._decoders = decoders

    async def infer(self, caller: Caller, message: ModelInferRequest) -> ModelInferResponse:
        """Answer one request. Cancelling it drops its rows.

        Raises:
            ServiceError, InputError: the request is refused.
        """
        which = Which(message.model_name, message.model_version or None)
        served = self._registry.choose(which, caller.sent_id)
        caller.record.model, caller.record.version = served.name, served.version
        caller.record.statistics = served.statistics
        request, answers = await self._run_in_time(served, caller, message)
        began_s = time.perf_counter()
        response = respond(served.predictor.bundle.manifest, request, answers)
        written = write_response(response, typed=not message.raw_input_contents)
        served.statistics.rendered.add(time.perf_counter() - began_s)
        return written

    async def _run_in_time(
        self, served: Served, caller: Caller, message: ModelInferRequest
    ) -> tuple[InferRequest, list[Answer]]:
        """Run it while the service allows it and the caller waits."""
        limits_s = (self._settings.deadline_ms / 1e3, caller.time_left_s, timeout_of(message))
        limit_s = min(each for each in limits_s if each is not None)
        try:
            async with asyncio.timeout(limit_s):
                return await self._run(served, caller, message)
        except TimeoutError as error:
            raise DeadlineError(f"the answer was not ready within {limit_s * 1000:.0f} ms") from error

    async def _run(
        self, served: Served, caller: Caller, message: ModelInferRequest
    ) -> tuple[InferRequest, list[Answer]]:
        """Read and validate before the queue, then wait for the batcher."""
        manifest, limits = served.predictor.bundle.manifest, self._settings.limits

        def read() -> tuple[InferRequest, list[Row]]:
            request = parse_request(message)
            return request, read_rows(manifest, request, limits)

        if caller.size_bytes <= _INLINE_BYTES:
            request, rows = read()
        else:
            request, rows = await asyncio.get_running_loop().run_in_executor(self._decoders, read)
        trace = caller.record.trace
        if trace is not None:
            trace.submit()
        answers = await served.batcher.submit(rows, request.priority)
        if trace is not None:
            trace.answered(answers)
        return request, answers
