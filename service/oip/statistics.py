"""The statistics extension: what each version of a model has done, in all processes that share the port."""

from __future__ import annotations

from typing import Any

from service.control import Control
from service.metrics import Metrics
from service.registry import Registry
from service.statistics import add_up

# Under which name a process reports what it has counted.
REPORT = "statistics"


def report(registry: Registry, metrics: Metrics) -> dict[str, dict[str, dict[str, Any]]]:
    """Return name -> version -> what this process has counted.

    Args:
        metrics: of this process; what was gathered for them by now is counted first.
    """
    metrics.gather()
    return {
        name: {version: served.statistics.render() for version, served in model.versions.items()}
        for name, model in registry.models().items()
    }


async def statistics(
    control: Control, registry: Registry, name: str | None = None, version: str | None = None
) -> dict[str, Any]:
    """Return the statistics of one version, of all of a model, or of all models.

    What a process had counted that has died since is not among them; the metrics keep it.

    Raises:
        UnknownModelError, ModelNotReadyError: no such model or version.
        DeadlineError: a process did not answer.
    """
    if name is not None and version is not None:
        wanted = [(name, version)] if registry.get(name, version) else []
    else:
        names = registry.names() if name is None else [name]
        wanted = [(each.name, each.version) for name in names for each in registry.versions(name)]
    reports = await control.gather(REPORT)
    found = []
    for name, version in wanted:
        counted = [each[name][version] for each in reports if version in each.get(name, {})]
        if counted:
            found.append({"name": name, "version": version, **add_up(counted), "memory_usage": []})
    return {"model_stats": found}
