"""What is served of one model: its versions, and which of them a call gets."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from bundle.answer import Answer
from bundle.predictor import Predictor
from bundle.serving import CANARY, STABLE, Serving
from service.batcher import Batcher
from service.errors import UnknownModelError
from service.monitoring.monitored import Monitored
from service.statistics import Statistics


class Which(NamedTuple):
    """The model that a caller names: by its version, by an alias of one, or by neither."""

    name: str
    version: str | None = None
    alias: str | None = None


@dataclass(frozen=True, eq=False)
class Served:
    """One version of one model: proven, warm, and with a queue of its own.

    Whoever works with one holds it, so it may be taken out of service at any moment: what it has begun, it
    ends.

    Attributes:
        statistics: of what it has done; told by its runner and by whoever answers its calls.
        monitored: what is known of its answers; None where they are not monitored.
    """

    predictor: Predictor
    batcher: Batcher[Answer]
    statistics: Statistics = field(default_factory=Statistics)
    monitored: Monitored | None = None

    @cached_property
    def name(self) -> str:
        """The model's name."""
        return self.predictor.bundle.manifest.name

    @cached_property
    def version(self) -> str:
        """The version, which is a string everywhere on the wire."""
        return str(self.predictor.bundle.manifest.version)


class ServedModel:
    """The versions of one model that are served together, and which a call gets. It never changes.

    Args:
        name: of the model.
        served: its versions, at least one.
        serving: the aliases, all of versions that are among them, and the canary's share.

    Attributes:
        versions: version -> what serves it, oldest first.
        aliases: alias -> what serves it.
    """

    def __init__(self, name: str, served: Iterable[Served], serving: Serving) -> None:
        self.name = name
        self.serving = serving
        self.versions: Mapping[str, Served] = {
            each.version: each for each in sorted(served, key=lambda each: int(each.version))
        }
        self.aliases: Mapping[str, Served] = {
            alias: self.versions[str(version)] for alias, version in serving.aliases.items()
        }
        self._usual = self.aliases.get(STABLE) or list(self.versions.values())[-1]
        self._canary = self.aliases.get(CANARY) if serving.canary_weight else None

    def choose(self, which: Which, sticky_id: str = "") -> Served:
        """Return the version that serves a call, as `Registry.choose` has it."""
        if which.version is not None:
            served = self.versions.get(which.version)
        elif which.alias is not None:
            served = self.aliases.get(which.alias)
        elif self._canary is None:
            return self._usual
        else:
            return self._canary if self._is_canaries(sticky_id) else self._usual
        if served is None:
            raise UnknownModelError(self._describe(which))
        return served

    def _is_canaries(self, sticky_id: str) -> bool:
        """Whether an unversioned call falls into the canary's share.

        The hash is the same in every process and replica; the name is in it, so that the canaries of several
        models do not all meet the same callers.
        """
        if not sticky_id:
            return random.random() < self.serving.canary_weight  # noqa: S311 - it guards nothing
        digest = hashlib.blake2b(f"{self.name}/{sticky_id}".encode(), digest_size=8).digest()
        return int.from_bytes(digest) < self.serving.canary_weight * 2**64

    def _describe(self, which: Which) -> str:
        if which.version is not None:
            known = ", ".join(self.versions)
            return f"the model {self.name!r} has no version {which.version!r}; it has {known}"
        known = ", ".join(sorted(self.aliases)) or "none"
        return f"the model {self.name!r} has no alias {which.alias!r}; it has {known}"
