"""The registry: which models this process serves, and in which versions."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from bundle.answer import Answer
from bundle.errors import BundleError
from bundle.predictor import Predictor, load_predictor
from bundle.repository import list_bundles
from bundle.rows import bucket_of
from bundle.session import count_nodes
from service.batcher import Batcher, Runner
from service.errors import UnknownModelError
from service.metrics import Metrics
from service.pool import RunPool
from service.settings import Settings

logger = logging.getLogger(__name__)


class Which(NamedTuple):
    """The model that a caller names: by its version, by an alias of one, or by neither."""

    name: str
    version: str | None = None
    alias: str | None = None


@dataclass(frozen=True)
class Served:
    """One version of one model: proven, warm, and with a queue of its own."""

    predictor: Predictor
    batcher: Batcher[Answer]

    @property
    def name(self) -> str:
        """The model's name."""
        return self.predictor.bundle.manifest.name

    @property
    def version(self) -> str:
        """The version, which is a string everywhere on the wire."""
        return str(self.predictor.bundle.manifest.version)


class Registry:
    """All that is served, by name and version.

    Args:
        served: every model that was loaded.
        pool: the threads that their batches run on.
    """

    def __init__(self, served: Iterable[Served], pool: RunPool) -> None:
        self._models: dict[str, dict[str, Served]] = {}
        for model in served:
            self._models.setdefault(model.name, {})[model.version] = model
        self._latest = {name: max(versions.values(), key=_number) for name, versions in self._models.items()}
        self._pool = pool

    def names(self) -> list[str]:
        """Return the names of all models, sorted."""
        return sorted(self._models)

    def versions(self, name: str) -> list[Served]:
        """Return every version of a model, oldest first.

        Raises:
            UnknownModelError: no such model.
        """
        versions = self._models.get(name)
        if versions is None:
            raise UnknownModelError(f"there is no model {name!r}; there are {', '.join(self.names())}")
        return sorted(versions.values(), key=_number)

    def get(self, name: str, version: str | None = None) -> Served:
        """Return one version of a model, by default the latest.

        Raises:
            UnknownModelError: no such model or version.
        """
        served = self._latest.get(name) if version is None else self._models.get(name, {}).get(version)
        if served is not None:
            return served
        known = ", ".join(each.version for each in self.versions(name))
        raise UnknownModelError(f"the model {name!r} has no version {version!r}; it has {known}")

    def choose(self, which: Which, sticky_id: str = "") -> Served:
        """Return the version of a model that serves a call.

        Args:
            sticky_id: calls of one id get one version, where a share of them goes to another.

        Raises:
            UnknownModelError: no such model, version or alias.
        """
        if which.alias is not None:
            raise UnknownModelError(f"the model {which.name!r} has no alias {which.alias!r}")
        return self.get(which.name, which.version)

    async def stop(self) -> None:
        """Stop every batcher and the threads. Call it when no request is left."""
        for versions in self._models.values():
            for served in versions.values():
                await served.batcher.stop()
        self._pool.executor.shutdown(wait=True)


def load_registry(settings: Settings, metrics: Metrics) -> Registry:
    """Load, verify, self-test and warm up every bundle of the model repository.

    Raises:
        BundleError: a bundle cannot be served, or there is none; the message says which and why.
    """
    bundles = list_bundles(settings.models)
    if not bundles:
        raise BundleError(f"the model repository {settings.models} holds no bundle <name>/<version>")
    pool = RunPool(settings.run_threads)
    metrics.threads.set(pool.threads)
    served = []
    for name, versions in bundles.items():
        for version in versions:
            directory = settings.models / name / str(version)
            predictor = load_predictor(directory, settings.provider, callers=pool.threads)
            seconds_per_element = predictor.warm_up()
            _report(predictor, metrics)
            runner = runner_of(predictor, seconds_per_element)
            served.append(Served(predictor, Batcher(runner, pool, settings.max_queue_size, metrics)))
    return Registry(served, pool)


def runner_of(predictor: Predictor, seconds_per_element: float = math.inf) -> Runner[Answer]:
    """Return how the rows of a predictor are run; see `Runner`."""
    manifest = predictor.bundle.manifest
    return Runner(
        name=manifest.name,
        version=str(manifest.version),
        run=predictor.answer,
        max_batch_size=manifest.max_batch_size,
        seconds_per_element=seconds_per_element,
        bucket_of=partial(bucket_of, manifest),
    )


def _number(served: Served) -> int:
    return int(served.version)


def _report(predictor: Predictor, metrics: Metrics) -> None:
    manifest = predictor.bundle.manifest
    labels = (manifest.name, str(manifest.version))
    metrics.model_info.labels(
        *labels, predictor.precision, predictor.provider, predictor.bundle.manifest_sha256
    ).set(1)
    metrics.model_fallback.labels(*labels).set(predictor.fallback is not None)
    metrics.model_ready.labels(*labels).set(1)
    nodes = ", ".join(f"{count} nodes on {name}" for name, count in count_nodes(predictor.session).items())
    logger.info("%s/%s is ready: %s on %s, %s", *labels, predictor.precision, predictor.provider, nodes)
