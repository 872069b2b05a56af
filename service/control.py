"""Control: who may change what is served changes it here, in this process or in all that share the port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

from bundle.errors import ServingError
from bundle.predictor import Predictor
from bundle.serving import Serving, read_serving, write_serving
from service.commands import Command, Link
from service.errors import DeadlineError, ModelControlError, ModelLoadError
from service.lifecycle import Lifecycle
from service.settings import Settings
from service.watcher import watch

T = TypeVar("T")


class Control:
    """The repository API without a transport.

    Args:
        settings: say whether anybody may change anything.
        lifecycle: changes what this process serves.
        link: to the other processes; None where there are none.

    Attributes:
        reports: name -> what tells something of this process, in a form that JSON has; see `gather`.
    """

    def __init__(self, settings: Settings, lifecycle: Lifecycle, link: Link | None = None) -> None:
        self._settings = settings
        self._lifecycle = lifecycle
        self._link = link
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        self.reports: dict[str, Callable[[], Any]] = {}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Do what other processes ask, and follow the repository where the settings say so."""
        if self._link is not None:
            self._link.open(self._apply)
            self._link.tell_standing(self._lifecycle.standing)
            self._lifecycle.on_change = self._link.tell_standing
        watching = None
        if self._settings.follows_repository:
            watching = asyncio.ensure_future(watch(self._settings, self._lifecycle))
        yield
        if watching is not None:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
        if self._link is not None:
            self._link.close()
        await self._lifecycle.stop()

    async def index(self, ready: bool = False) -> list[dict[str, str]]:
        """Return name, version, state and reason of every version that is known.

        Args:
            ready: only of those that are served.
        """
        statuses = await self._lifecycle.index()
        return [status.model_dump() for status in statuses if status.state == "READY" or not ready]

    async def load(self, name: str, parameters: Mapping[str, Any] | None = None) -> None:
        """Load or reload a model in every process.

        Raises:
            ModelControlError: that is not allowed here, or a parameter is not supported.
            UnknownModelError, ModelLoadError, DeadlineError: as `Lifecycle.load` has it.
        """
        self._check_allowed()
        for key in parameters or {}:
            raise ModelControlError(
                f"the parameter {key!r} is not supported: a model is loaded from the model repository alone"
            )
        await self._everywhere(Command(kind="load", name=name))

    async def unload(self, name: str, parameters: Mapping[str, Any] | None = None) -> None:
        """Unload a model in every process, until it is loaded again.

        Raises:
            ModelControlError: that is not allowed here, or a parameter is not supported.
            UnknownModelError, DeadlineError: as `Lifecycle.unload` has it.
        """
        self._check_allowed()
        for key in set(parameters or {}) - {"unload_dependents"}:  # no model depends on another
            raise ModelControlError(f"the parameter {key!r} is not supported")
        await self._everywhere(Command(kind="unload", name=name))

    async def serving(self, name: str) -> Serving:
        """Return what a model's `serving.json` says.

        Raises:
            UnknownModelError: the repository holds no such model.
            ModelLoadError: the file cannot be understood.
        """
        await self._lifecycle.published(name)
        try:
            return await asyncio.to_thread(read_serving, self._settings.models, name)
        except ServingError as error:
            raise ModelLoadError(str(error)) from error

    async def set_serving(self, name: str, serving: Serving) -> None:
        """Serve a model so in every process, and write it to its `serving.json`; all of it or nothing.

        Raises:
            ModelControlError: that is not allowed here.
            UnknownModelError, ModelLoadError, DeadlineError: as `Lifecycle.serve` has it.
        """
        self._check_allowed()
        await self._everywhere(Command(kind="serve", name=name, serving=serving))

    async def gather(self, report: str) -> list[Any]:
        """Return what one of the `reports` tells in each process.

        Raises:
            DeadlineError: a process did not answer.
        """
        return await self._everywhere(Command(kind="report", name=report))

    async def fall_back(self, predictor: Predictor, reason: str) -> None:
        """Have the fp32 graph take over in this process, as `Lifecycle.fall_back` has it."""
        await self._lifecycle.fall_back(predictor, reason)

    def _check_allowed(self) -> None:
        if not self._settings.takes_commands:
            raise ModelControlError(
                "what is served cannot be changed through this server; OCTET_MODEL_CONTROL=explicit allows it"
            )

    async def _everywhere(self, command: Command) -> list[Any]:
        """Have every process do it; to its end, also when the caller goes away meanwhile."""
        work = self._link.ask(command) if self._link is not None else self._alone(command)
        return await self._to_its_end(work)

    async def _alone(self, command: Command) -> list[Any]:
        async with self._turn:
            result = await self._apply(command)
            if command.kind == "serve":  # as the coordinator does it
                try:
                    await asyncio.to_thread(make_last, self._settings, command)
                except ServingError as error:
                    raise ModelLoadError(str(error)) from error
                finally:
                    await self._lifecycle.follow([command.name])
            return [result]

    async def _to_its_end(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # With other processes, the coordinator looks at the time.
        limit_s = self._settings.control_timeout_s if self._link is None else None
        try:
            return await asyncio.wait_for(asyncio.shield(task), limit_s)
        except TimeoutError as error:
            raise DeadlineError(f"this was not done within {limit_s:g} s; it may be later") from error

    async def _apply(self, command: Command) -> Any:
        """Do it in this process."""
        match command.kind:
            case "load":
                await self._lifecycle.load(command.name)
            case "unload":
                await self._lifecycle.unload(command.name)
            case "serve":
                assert command.serving is not None
                await self._lifecycle.serve(command.name, command.serving)
            case "follow":
                await self._lifecycle.follow([command.name])
            case "report":
                return self.reports[command.name]()
        return None


def make_last(settings: Settings, command: Command) -> None:
    """Write to the repository what every process has done, where it should outlast them.

    Raises:
        ServingError: the disk refuses.
    """
    if command.kind == "serve":
        assert command.serving is not None
        write_serving(settings.models, command.name, command.serving)
