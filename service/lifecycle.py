"""The lifecycle of models in one process: loaded, replaced and unloaded while calls are answered.

Loading happens in a thread, one change at a time. The new is proven and warm before it takes the place of the
old, and what cannot be served leaves the old where it is. An explicit unload holds until an explicit load.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from collections.abc import Callable, Collection, Iterable
from typing import Literal

from bundle.errors import BundleError, ServingError
from bundle.media import Frozen
from bundle.predictor import Predictor
from bundle.serving import Serving, read_serving
from service.errors import ModelLoadError, UnknownModelError
from service.loader import Failure, Known, Loaded, Loader, Prepared, put_into_service, take_out_of_service
from service.memory import give_back_freed
from service.metrics import Metrics
from service.registry import Registry, Served, ServedModel
from service.settings import Settings
from service.standing import InService, Standing

logger = logging.getLogger(__name__)

ModelState = Literal["READY", "LOADING", "UNLOADING", "UNAVAILABLE"]
Retired = dict[tuple[str, str], weakref.ref[Predictor]]

UNLOADED = "unloaded"
# How long a change waits for the last calls of what it took out of service.
_LAST_CALLS_S = 0.5
_FIRST_LOOK_S, _LONGEST_LOOK_S = 0.01, 1.0


class VersionStatus(Frozen):
    """The state of one version of a model; `reason` says why, where there is something to say."""

    name: str
    version: str
    state: ModelState
    reason: str = ""


class Lifecycle:
    """Changes what a registry serves. Its coroutines belong to the event loop that serves.

    Args:
        settings: where the models lie, and how they run.
        registry: what is served.
        metrics: told of every change.

    Attributes:
        on_change: told after every change what is served.
    """

    def __init__(self, settings: Settings, registry: Registry, metrics: Metrics) -> None:
        self._settings = settings
        self._registry = registry
        self._metrics = metrics
        self._loader = Loader(settings, registry.resources.pool.threads)
        self._lock = asyncio.Lock()
        self._unloaded: set[str] = set()
        self._failures: dict[str, dict[int, Failure]] = {}
        self._problems: dict[str, str] = {}  # of a model as a whole, such as of its serving.json
        self._under_way: dict[tuple[str, str], ModelState] = {}
        self._reclaiming: set[asyncio.Task[None]] = set()
        self.on_change: Callable[[Standing], None] = lambda _: None

    @property
    def standing(self) -> Standing:
        """What is served at the moment."""
        models = {
            name: InService(versions=tuple(map(int, model.versions)), serving=model.serving)
            for name, model in self._registry.models().items()
        }
        return Standing(models=models, unloaded=tuple(sorted(self._unloaded)))

    def restore(self, standing: Standing) -> None:
        """Serve what another process served, as far as that can be. Call it before the event loop runs."""
        self._unloaded = set(standing.unloaded)
        for name in standing.unloaded:
            self._registry.drop(name, UNLOADED)
        for name, model in standing.models.items():
            all_of_them = model.serving.model_copy(update={"versions": "all"})
            self._settle(name, self._try(name, all_of_them, only=model.versions))

    async def load(self, name: str) -> None:
        """Load what should be served of a model, also what is loaded already, and also if it was unloaded.

        Raises:
            UnknownModelError: the repository holds no such model.
            ModelLoadError: something cannot be served; what can is, and what was served before still is.
        """
        async with self._lock:
            await self.published(name)
            self._unloaded.discard(name)
            await self._bring_in_line(name, anew=True)
            failures = self._failures.get(name, {}).items()
            reasons = "; ".join(f"version {version}: {each.error}" for version, each in failures)
            if reason := self._problems.get(name) or reasons:
                raise ModelLoadError(f"{name} cannot be served as it should be: {reason}")

    async def unload(self, name: str) -> None:
        """Serve nothing of a model until it is loaded.

        Raises:
            UnknownModelError: there is no such model.
        """
        async with self._lock:
            if name not in self._registry.models():
                await self.published(name)
            self._unloaded.add(name)
            await self._reclaim(self._drop(name, UNLOADED))

    async def serve(self, name: str, serving: Serving) -> None:
        """Serve other versions of a model or under other aliases, whatever its `serving.json` says.

        Raises:
            UnknownModelError: the repository holds no such model.
            ModelLoadError: a version that is named is not there or cannot be served; nothing has changed.
        """
        async with self._lock:
            try:
                serving.check_published(await self.published(name), name)
            except ServingError as error:
                raise ModelLoadError(str(error)) from error
            if name in self._unloaded:
                return
            await self._bring_in_line(name, serving)
            if problem := self._problems.get(name):
                raise ModelLoadError(f"{name} cannot be served so: {problem}")

    async def follow(self, names: Iterable[str] | None = None) -> None:
        """Bring what is served in line with the repository as far as that can be; what cannot is logged.

        Args:
            names: of the models; None for all. Those that were unloaded explicitly stay so.
        """
        async with self._lock:
            try:
                published = await asyncio.to_thread(self._loader.published)
            except BundleError as error:  # it may be back in a moment, so nothing is unloaded for that
                logger.error("what is served stays as it is: %s", error)
                return
            known = {*published, *self._registry.models(), *self._registry.unready()}
            for name in sorted((known if names is None else set(names)) - self._unloaded):
                if name in published:
                    await self._bring_in_line(name)
                else:
                    self._failures.pop(name, None)
                    self._problems.pop(name, None)
                    await self._reclaim(self._drop(name, None))

    async def fall_back(self, predictor: Predictor, reason: str) -> None:
        """Have the fp32 graph take the place of a predictor, until its model is loaded anew.

        Nothing changes where the predictor is not served any more, or its fp32 graph cannot be.
        """
        async with self._lock:
            await self._reclaim(await self._put_fp32(predictor, reason))

    async def index(self) -> list[VersionStatus]:
        """Return the state of every version that the repository holds or that is served."""
        try:
            published = await asyncio.to_thread(self._loader.published)
        except BundleError:
            published = {}
        versions = {(name, str(each)) for name, found in published.items() for each in found}
        versions |= set(self._under_way)
        for name, model in self._registry.models().items():
            versions |= {(name, version) for version in model.versions}
        return [self._status(*each) for each in sorted(versions, key=lambda each: (each[0], int(each[1])))]

    async def stop(self) -> None:
        """Wait for nothing any more."""
        for task in self._reclaiming:
            task.cancel()
        await asyncio.gather(*self._reclaiming, return_exceptions=True)

    async def published(self, name: str) -> list[int]:
        """Return the versions of a model that the repository holds.

        Raises:
            UnknownModelError: it holds none.
            ModelLoadError: it cannot be read.
        """
        try:
            published = await asyncio.to_thread(self._loader.published)
        except BundleError as error:
            raise ModelLoadError(str(error)) from error
        if name not in published:
            raise UnknownModelError(f"the model repository holds no model {name!r}")
        return published[name]

    async def _bring_in_line(self, name: str, serving: Serving | None = None, *, anew: bool = False) -> None:
        await self._reclaim(await self._replace(name, serving, anew))

    async def _replace(self, name: str, serving: Serving | None, anew: bool) -> Retired:
        """Put into service what should be; return what it took the place of."""
        try:
            return self._settle(name, await asyncio.to_thread(self._try, name, serving, anew=anew))
        finally:
            loading = [
                each for each, state in self._under_way.items() if (each[0], state) == (name, "LOADING")
            ]
            for each in loading:
                del self._under_way[each]

    def _try(
        self, name: str, serving: Serving | None, *, only: Collection[int] | None = None, anew: bool = False
    ) -> Prepared | None:
        """Prepare a model in any thread; None, and a problem, where that cannot be done at all."""

        def note(version: int) -> None:
            self._under_way[name, str(version)] = "LOADING"

        current, failures = self._registry.models().get(name), self._failures.get(name, {})
        try:
            wanted = read_serving(self._settings.models, name) if serving is None else serving
            prepared = self._loader.prepare(name, wanted, Known(current, failures, anew, note), only=only)
        except Exception as error:  # whatever lies on disk, this process goes on
            reason = " ".join(str(error).split())
            if self._problems.get(name) != reason:  # it is told once
                self._metrics.model_load_failures.labels(name, "").inc()
                trace = None if isinstance(error, BundleError) else error
                logger.error("what is served of %s stays as it is: %s", name, reason, exc_info=trace)
            self._problems[name] = reason
            return None
        self._problems.pop(name, None)
        self._failures[name] = prepared.failures
        for version in sorted(prepared.tried):
            self._metrics.model_load_failures.labels(name, str(version)).inc()
            logger.error("%s/%d cannot be served: %s", name, version, prepared.failures[version].error)
        return prepared

    def _settle(self, name: str, prepared: Prepared | None) -> Retired:
        """Put into service what was prepared, all at once; nothing where one that is named is missing."""
        current = self._registry.models().get(name)
        if prepared is not None and (missing := prepared.serving.named() - set(prepared.versions)):
            reasons = "; ".join(
                f"version {each}: {prepared.failures[each].error}" for each in sorted(missing)
            )
            self._problems[name] = f"a version that must be served cannot be: {reasons}"
        if prepared is None or name in self._problems or not prepared.versions:
            if current is None:
                reasons = "; ".join(str(each.error) for each in self._failures.get(name, {}).values())
                self._registry.drop(name, self._problems.get(name) or reasons or "no version of it is wanted")
            return {}
        old = list(current.versions.values()) if current is not None else []
        if current is not None and (prepared.serving, [*prepared.versions.values()]) == (
            current.serving,
            old,
        ):
            return {}
        new = [self._put_into_service(each) for each in prepared.versions.values()]
        self._registry.put(ServedModel(name, new, prepared.serving))
        aliases = ", ".join(f"{alias} {version}" for alias, version in prepared.serving.aliases.items())
        versions = ", ".join(map(str, prepared.versions))
        logger.info("%s is served in the versions %s; aliases: %s", name, versions, aliases or "none")
        retired = self._retire(each for each in old if each not in new)
        self.on_change(self.standing)
        return retired

    async def _put_fp32(self, predictor: Predictor, reason: str) -> Retired:
        manifest = predictor.bundle.manifest
        name, version = manifest.name, str(manifest.version)
        model = self._registry.models().get(name)
        old = None if model is None else model.versions.get(version)
        if model is None or old is None or old.predictor is not predictor:
            return {}
        try:
            loaded = await asyncio.to_thread(self._loader.load_fp32, predictor, reason)
        except Exception as error:  # whatever it is, the int8 graph serves on
            trace = None if isinstance(error, BundleError) else error
            what = (name, version, " ".join(str(error).split()))
            logger.error("%s/%s stays as it is: fp32 cannot take over: %s", *what, exc_info=trace)
            return {}
        new = self._put_into_service(loaded)
        served = [new if each is old else each for each in model.versions.values()]
        self._registry.put(ServedModel(name, served, model.serving))
        self._metrics.shadow_fallback.labels(name, version).set(1)
        return self._retire([old])

    def _put_into_service(self, each: Served | Loaded) -> Served:
        if isinstance(each, Served):
            return each
        return put_into_service(each, self._settings, self._registry.resources, self._metrics)

    def _drop(self, name: str, reason: str | None) -> Retired:
        """Serve nothing of a model."""
        model = self._registry.models().get(name)
        self._registry.drop(name, reason)
        self.on_change(self.standing)
        return {} if model is None else self._retire(model.versions.values())

    def _retire(self, taken: Iterable[Served]) -> Retired:
        retired: Retired = {}
        for served in taken:
            model = self._registry.models().get(served.name)
            replaced = model is not None and served.version in model.versions
            take_out_of_service(served, self._registry.resources, self._metrics, replaced=replaced)
            retired[served.name, served.version] = weakref.ref(served.predictor)
        return retired

    async def _reclaim(self, retired: Retired) -> None:
        """Have the memory given back of what was taken out of service, when its last calls have ended."""
        if retired:
            task = asyncio.ensure_future(self._give_back(retired))
            self._reclaiming.add(task)
            task.add_done_callback(self._reclaiming.discard)
            await asyncio.wait({task}, timeout=_LAST_CALLS_S)

    async def _give_back(self, retired: Retired) -> None:
        self._under_way.update(dict.fromkeys(retired, "UNLOADING"))
        pause_s = _FIRST_LOOK_S
        end_s = asyncio.get_running_loop().time() + self._settings.longest_request_s
        while True:
            gc.collect()  # a batcher and what it calls hold each other
            held = any(predictor() is not None for predictor in retired.values())
            if not held or asyncio.get_running_loop().time() > end_s:
                break
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_LOOK_S)
        for each in retired:
            self._under_way.pop(each, None)
        give_back_freed()

    def _status(self, name: str, version: str) -> VersionStatus:
        """Tell the state of a version that the repository holds, that is served, or that changes."""
        failure = self._failures.get(name, {}).get(int(version))
        model = self._registry.models().get(name)
        reason = str(failure.error) if failure is not None else self._problems.get(name, "")
        state: ModelState = "UNAVAILABLE"
        if model is not None and version in model.versions:
            state = "READY"
            reason = reason and f"served as it was before: {reason}"
        elif (name, version) in self._under_way:
            state, reason = self._under_way[name, version], ""
        elif name in self._unloaded:
            reason = UNLOADED
        else:
            reason = reason or "not loaded, or not wanted by the version policy"
        return VersionStatus(name=name, version=version, state=state, reason=reason)
