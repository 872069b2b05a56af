"""How many CPUs this process may really use, in a container too, and that numpy shall use but one.

`os.cpu_count` counts the host's. A container is held to fewer by affinity (cpusets) or by a quota of its
cgroup, and threads beyond that are throttled.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

from threadpoolctl import threadpool_limits

CGROUP = Path("/sys/fs/cgroup")


def allowed_cpus(cgroup: Path = CGROUP) -> int:
    """Return the smaller of the affinity and the cgroup's quota, rounded up; at least 1.

    Args:
        cgroup: where the control group file system is mounted, version 2 or 1.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(affinity, _quota(cgroup))))


def use_one_blas_thread() -> None:
    """Have numpy's linear algebra run in the thread that asks for it, whatever the size.

    Its own threads wait for one another by spinning. Where each CPU has a process that serves, a product of
    matrices that takes a millisecond kept the event loop for fifty.
    """
    threadpool_limits(1, user_api="blas")


def _quota(cgroup: Path) -> float:
    """CPUs that the cgroup's quota amounts to; infinite without one."""
    try:
        quota, period = (cgroup / "cpu.max").read_text(encoding="ascii").split()
        return math.inf if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    try:
        quota_us = int((cgroup / "cpu" / "cpu.cfs_quota_us").read_text(encoding="ascii"))
        period_us = int((cgroup / "cpu" / "cpu.cfs_period_us").read_text(encoding="ascii"))
        return quota_us / period_us if quota_us > 0 else math.inf
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf
