"""What all models of a process share."""

from __future__ import annotations

from dataclasses import dataclass, field

from service.monitoring.monitor import Monitor
from service.pool import RunPool
from service.tap import Tap


@dataclass(frozen=True)
class Resources:
    """What all models of a process share.

    Attributes:
        pool: the threads that their batches run on.
        tap: where their runs are shown to those who look at them later.
        monitor: counts and tests their answers, and takes feedback; None where nobody does.
    """

    pool: RunPool
    tap: Tap = field(default_factory=Tap)
    monitor: Monitor | None = None
