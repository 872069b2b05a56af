"""The loader: makes of the versions of a model on disk what can be served. It may work in any thread.

It changes nothing that is served: what it finds is put into service, or not, by whom it works for.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from bundle.answer import Answer
from bundle.errors import BundleError
from bundle.manifest import MANIFEST_FILE
from bundle.predictor import Predictor, create_predictor, load_predictor
from bundle.repository import list_bundles
from bundle.rows import Row, bucket_of
from bundle.self_test import read_golden
from bundle.serving import SERVING_FILE, Serving
from bundle.session import count_nodes
from bundle.trusted import read_trusted
from service.batcher import Batcher, Runner
from service.metrics import Metrics
from service.resources import Resources
from service.served import Served, ServedModel
from service.settings import Settings
from service.statistics import Statistics

logger = logging.getLogger(__name__)

# Elements of a row where lengths vary; of longer ones fewer run together. A sound of half a second takes
# .72 ms alone and .37 in a batch of eight; one of four seconds 3.2 ms alone, 2.5 in a batch of two and 3.0 in
# one of eight, which would keep others waiting for 24 ms and hold four times the memory.
_LONG_ROW = 8_000

# Names, sizes and times of a directory's files: while they stay, a bundle that failed would fail again.
Fingerprint = tuple[tuple[str, int, int], ...]


class Loaded(NamedTuple):
    """A predictor that is proven and warm, but not in service yet."""

    predictor: Predictor
    seconds_per_element: float


class Failure(NamedTuple):
    """Why a version cannot be served.

    Attributes:
        error: without the trace of the one that was raised, which would hold on to what was in work then.
    """

    error: BundleError
    fingerprint: Fingerprint


@dataclass(frozen=True)
class Known:
    """What was there before.

    Attributes:
        current: what is in service of the model.
        failures: version -> why it failed.
        outdated: load all of it anew all the same.
        note: told of each version whose loading begins.
    """

    current: ServedModel | None = None
    failures: Mapping[int, Failure] = field(default_factory=dict)
    outdated: bool = False
    note: Callable[[int], None] = lambda _: None

    def served(self, version: int) -> Served | None:
        """Return what is in service of a version."""
        return None if self.current is None else self.current.versions.get(str(version))


@dataclass
class Prepared:
    """What could be served of one model.

    Attributes:
        serving: what was asked for.
        versions: version -> what serves it; what is in service already stands here as it is.
        failures: version -> why it cannot be served. One that is in `versions` too was changed on disk and is
            served as it was before.
        tried: the versions among `failures` that have not failed before.
    """

    serving: Serving
    versions: dict[int, Served | Loaded] = field(default_factory=dict)
    failures: dict[int, Failure] = field(default_factory=dict)
    tried: set[int] = field(default_factory=set)


class Loader:
    """Loads, verifies, self-tests and warms up bundles.

    Args:
        settings: where they lie, and how they run.
        callers: threads that will run each.
    """

    def __init__(self, settings: Settings, callers: int) -> None:
        self._settings = settings
        self._callers = callers

    def published(self) -> dict[str, list[int]]:
        """Return name -> versions of every bundle directory in the model repository.

        Raises:
            BundleError: the repository is not a directory.
        """
        return list_bundles(self._settings.models)

    def load(self, name: str, version: int) -> Loaded:
        """Load one bundle.

        Raises:
            BundleError: it cannot be served; the message says why.
        """
        trusted = self._settings.trusted_digests
        predictor = load_predictor(
            self._directory(name, version),
            self._settings.provider,
            callers=self._callers,
            trusted=None if trusted is None else read_trusted(trusted),
        )
        return Loaded(predictor, predictor.warm_up())

    def load_fp32(self, predictor: Predictor, reason: str) -> Loaded:
        """Load the fp32 graph of a bundle that is in service, as it was read then.

        Args:
            reason: why it should serve in the place of the other graph.

        Raises:
            BundleError: it cannot be served; the message says why.
        """
        bundle = predictor.bundle
        other = create_predictor(bundle, "fp32", predictor.provider, fallback=reason, callers=self._callers)
        other.check_self(read_golden(bundle))
        return Loaded(other, other.warm_up())

    def prepare(
        self, name: str, serving: Serving, known: Known, *, only: Collection[int] | None = None
    ) -> Prepared:
        """Load what should be served of a model and is not in service yet.

        Args:
            serving: which versions; those that it names must be there.
            known: what need not be loaded, or not be tried.
            only: the versions to look at; None for all.

        Raises:
            BundleError: a version that is named is not there, or the repository is not.
        """
        published = [each for each in self.published().get(name, []) if only is None or each in only]
        serving.check_published(published, str(self._settings.models / name / SERVING_FILE))
        prepared = Prepared(serving)

        def loads(version: int) -> bool:
            if version not in prepared.versions and version not in prepared.failures:
                self._obtain(prepared, name, version, known)
            return version in prepared.versions

        picked = serving.pick(published, self._settings.version_policy, loads)
        prepared.versions = {version: prepared.versions[version] for version in picked}
        return prepared

    def _obtain(self, prepared: Prepared, name: str, version: int, known: Known) -> None:
        """Put one version into what is prepared: as it is in service, as it failed before, or from disk."""
        old = known.served(version)
        failure = known.failures.get(version)
        fingerprint = _fingerprint(self._directory(name, version))
        if old is not None:
            prepared.versions[version] = old
        if old is not None and not known.outdated and self._is_unchanged(old):
            return
        if failure is not None and not known.outdated and failure.fingerprint == fingerprint:
            prepared.failures[version] = failure
            return
        known.note(version)
        try:
            prepared.versions[version] = self.load(name, version)
        except BundleError as error:
            prepared.failures[version] = Failure(type(error)(str(error)), fingerprint)
            prepared.tried.add(version)

    def _is_unchanged(self, served: Served) -> bool:
        """Whether the manifest on disk, and so every file, is the one that was loaded."""
        path = self._directory(served.name, int(served.version)) / MANIFEST_FILE
        try:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError:
            return False
        return digest == served.predictor.bundle.manifest_sha256

    def _directory(self, name: str, version: int) -> Path:
        return self._settings.models / name / str(version)


def put_into_service(loaded: Loaded, settings: Settings, resources: Resources, metrics: Metrics) -> Served:
    """Give what was loaded a queue, and tell the metrics and the log of it."""
    predictor = loaded.predictor
    manifest = predictor.bundle.manifest
    labels = (manifest.name, str(manifest.version))
    statistics = Statistics()
    runner = runner_of(predictor, loaded.seconds_per_element, statistics)
    batcher = Batcher(
        runner,
        resources.pool,
        settings.max_queue_size,
        metrics,
        statistics.queued,
        partial(resources.tap.ran, predictor),
    )
    monitored = None if resources.monitor is None else resources.monitor.open(predictor)
    served = Served(predictor, batcher, statistics, monitored)
    _info(predictor, metrics).set(1)
    metrics.model_fallback.labels(*labels).set(predictor.fallback is not None)
    metrics.shadow_fallback.labels(*labels).set(0)
    metrics.model_ready.labels(*labels).set(1)
    nodes = ", ".join(f"{count} nodes on {name}" for name, count in count_nodes(predictor.session).items())
    logger.info("%s/%s is ready: %s on %s, %s", *labels, predictor.precision, predictor.provider, nodes)
    return served


def take_out_of_service(served: Served, resources: Resources, metrics: Metrics, *, replaced: bool) -> None:
    """Tell the metrics and the log that no more calls will come. What has come is answered.

    Args:
        replaced: whether the same version is served anew.
    """
    served.batcher.retire()
    if resources.monitor is not None:
        resources.monitor.close(served.predictor)
    _info(served.predictor, metrics).set(0)
    if not replaced:
        metrics.model_ready.labels(served.name, served.version).set(0)
        metrics.model_fallback.labels(served.name, served.version).set(0)
        metrics.shadow_fallback.labels(served.name, served.version).set(0)
        logger.info("%s/%s is not served any more", served.name, served.version)


def runner_of(
    predictor: Predictor, seconds_per_element: float = math.inf, statistics: Statistics | None = None
) -> Runner[Answer]:
    """Return how the rows of a predictor are run; see `Runner`.

    Args:
        statistics: told of every run.
    """
    manifest = predictor.bundle.manifest
    counts = statistics or Statistics()

    def run(rows: Sequence[Row]) -> list[Answer]:
        answers = predictor.answer(rows)
        counts.ran(len(answers), answers[0].run)
        return answers

    return Runner(
        name=manifest.name,
        version=str(manifest.version),
        run=run,
        max_batch_size=manifest.max_batch_size,
        seconds_per_element=seconds_per_element,
        bucket_of=partial(bucket_of, manifest),
        max_elements=manifest.max_batch_size * _LONG_ROW if manifest.measured_inputs else math.inf,
    )


def _info(predictor: Predictor, metrics: Metrics):  # type: ignore[no-untyped-def]
    manifest = predictor.bundle.manifest
    return metrics.model_info.labels(
        manifest.name,
        str(manifest.version),
        predictor.precision,
        predictor.provider,
        predictor.bundle.manifest_sha256,
    )


def _fingerprint(directory: Path) -> Fingerprint:
    try:
        found = [(entry.name, entry.stat()) for entry in directory.iterdir()]
    except OSError:
        return ()
    return tuple(sorted((name, stat.st_size, stat.st_mtime_ns) for name, stat in found))
