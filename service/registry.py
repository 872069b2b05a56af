"""The registry: which models this process serves at the moment, in which versions, and which a call gets.

What is served of a model never changes; another takes its place, by one assignment on the event loop. So a
call sees all of a change or nothing, and what it has chosen it keeps to its end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bundle.errors import BundleError
from bundle.serving import Serving, read_serving
from service.errors import ModelNotReadyError, UnknownModelError
from service.loader import Known, Loaded, Loader, put_into_service, runner_of
from service.metrics import Metrics
from service.monitoring.keys import choose_keys
from service.monitoring.monitor import Monitor
from service.monitoring.once import Once
from service.pool import RunPool
from service.resources import Resources
from service.served import Served, ServedModel, Which
from service.settings import Settings

__all__ = [
    "Registry",
    "Served",
    "ServedModel",
    "Which",
    "fill_registry",
    "load_registry",
    "open_registry",
    "runner_of",
]


class Registry:
    """All that is served, by name and version.

    Args:
        served: every model that was loaded.
        resources: what they share.
    """

    def __init__(self, served: Iterable[Served], resources: Resources) -> None:
        versions: dict[str, list[Served]] = {}
        for each in served:
            versions.setdefault(each.name, []).append(each)
        self._models: Mapping[str, ServedModel] = {
            name: ServedModel(name, found, Serving()) for name, found in versions.items()
        }
        self._unready: Mapping[str, str] = {}
        self.resources = resources

    def names(self) -> list[str]:
        """Return the names of all models that are served, sorted."""
        return sorted(self._models)

    def models(self) -> Mapping[str, ServedModel]:
        """Return name -> what is served of it; what is returned never changes."""
        return self._models

    def unready(self) -> Mapping[str, str]:
        """Return name -> why nothing is served of a model that is known; what is returned never changes."""
        return self._unready

    def versions(self, name: str) -> list[Served]:
        """Return every version of a model, oldest first.

        Raises:
            UnknownModelError: no such model.
            ModelNotReadyError: nothing of it is served.
        """
        return list(self._model(name).versions.values())

    def get(self, name: str, version: str | None = None) -> Served:
        """Return one version of a model, by default the one that unversioned calls get.

        Raises:
            UnknownModelError: no such model or version.
            ModelNotReadyError: nothing of it is served.
        """
        return self.choose(Which(name, version))

    def choose(self, which: Which, sticky_id: str = "") -> Served:
        """Return the version of a model that serves a call.

        A call that names neither version nor alias gets the alias "stable", or the latest version where there
        is none; a share of such calls gets the alias "canary".

        Args:
            sticky_id: calls of one id get one version, where a share of them goes to another.

        Raises:
            UnknownModelError: no such model, version or alias.
            ModelNotReadyError: nothing of it is served.
        """
        model = self._models.get(which.name)
        return (self._model(which.name) if model is None else model).choose(which, sticky_id)

    def put(self, model: ServedModel) -> None:
        """Serve this of a model from now on. Call it on the event loop."""
        self._models = {**self._models, model.name: model}
        self._unready = {name: reason for name, reason in self._unready.items() if name != model.name}

    def drop(self, name: str, reason: str | None) -> None:
        """Serve nothing of a model from now on. Call it on the event loop.

        Args:
            reason: why, where callers should be told that it is not ready; None for that it does not exist.
        """
        unready = {other: why for other, why in self._unready.items() if other != name}
        self._unready = unready if reason is None else {**unready, name: reason}
        self._models = {other: model for other, model in self._models.items() if other != name}

    async def stop(self) -> None:
        """Stop every batcher and the threads. Call it when no request is left."""
        for model in self._models.values():
            for served in model.versions.values():
                await served.batcher.stop()
        if self.resources.monitor is not None:
            await self.resources.monitor.stop()
        self.resources.pool.executor.shutdown(wait=True)

    def _model(self, name: str) -> ServedModel:
        if (model := self._models.get(name)) is not None:
            return model
        if name in self._unready:
            raise ModelNotReadyError(f"the model {name!r} is not ready: {self._unready[name]}")
        raise UnknownModelError(f"there is no model {name!r}; there are {', '.join(self.names()) or 'none'}")


def open_registry(settings: Settings, metrics: Metrics) -> Registry:
    """Return a registry that serves nothing yet.

    Raises:
        OSError: the key file of prediction ids cannot be used.
    """
    pool = RunPool(settings.run_threads)
    metrics.threads.set(pool.threads)
    keys = choose_keys(settings.feedback_key_file)
    url, max_age_s = settings.feedback_redis_url, settings.feedback_max_age_s
    once = None if url is None else Once(url, max_age_s)
    monitor = Monitor(metrics, keys, settings.monitor_rows_per_s, max_age_s, once=once)
    resources = Resources(pool, monitor=monitor)
    if settings.monitor_rows_per_s:
        resources.tap.add(monitor)
    return Registry([], resources)


def fill_registry(registry: Registry, settings: Settings, metrics: Metrics) -> None:
    """Load, verify, self-test and warm up every bundle of the model repository that should be served.

    Raises:
        BundleError: a bundle cannot be served, or there is none; the message says which and why.
    """
    loader = Loader(settings, registry.resources.pool.threads)
    names = loader.published()
    if not names:
        raise BundleError(f"the model repository {settings.models} holds no bundle <name>/<version>")
    for name in names:
        prepared = loader.prepare(name, read_serving(settings.models, name), Known())
        for failure in prepared.failures.values():
            raise failure.error
        served = []
        for loaded in prepared.versions.values():
            assert isinstance(loaded, Loaded)  # nothing was in service before
            served.append(put_into_service(loaded, settings, registry.resources, metrics))
        registry.put(ServedModel(name, served, prepared.serving))


def load_registry(settings: Settings, metrics: Metrics) -> Registry:
    """Open a registry and fill it.

    Raises:
        BundleError: as `fill_registry`.
    """
    registry = open_registry(settings, metrics)
    fill_registry(registry, settings, metrics)
    return registry
