import os
import subprocess
import sys
from pathlib import Path

import pytest

from service import cpus
from service.cpus import allowed_cpus


@pytest.fixture(autouse=True)
def sixteen_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)


def cgroup_v2(folder: Path, content: str) -> Path:
    (folder / "cpu.max").write_text(content)
    return folder


def cgroup_v1(folder: Path, quota: str, period: str) -> Path:
    (folder / "cpu").mkdir()
    (folder / "cpu" / "cpu.cfs_quota_us").write_text(quota)
    (folder / "cpu" / "cpu.cfs_period_us").write_text(period)
    return folder


def test_without_a_cgroup_the_affinity_counts(tmp_path: Path) -> None:
    assert allowed_cpus(tmp_path) == 16


def test_without_affinity_the_cpus_of_the_host_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert allowed_cpus(tmp_path) == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert allowed_cpus(tmp_path) == 1


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),  # rounded up
        ("10000 100000\n", 1),
        ("3200000 100000\n", 16),  # the affinity is smaller
        ("max 100000\n", 16),
        ("nonsense\n", 16),
        ("", 16),
    ],
)
def test_the_quota_of_a_version_2_cgroup_is_kept(tmp_path: Path, content: str, expected: int) -> None:
    assert allowed_cpus(cgroup_v2(tmp_path, content)) == expected


@pytest.mark.parametrize(
    ("quota", "period", "expected"),
    [
        ("300000\n", "100000\n", 3),
        ("250000\n", "100000\n", 3),
        ("-1\n", "100000\n", 16),
        ("100000\n", "0\n", 16),
        ("nonsense\n", "100000\n", 16),
    ],
)
def test_the_quota_of_a_version_1_cgroup_is_kept(
    tmp_path: Path, quota: str, period: str, expected: int
) -> None:
    assert allowed_cpus(cgroup_v1(tmp_path, quota, period)) == expected


def test_the_usual_mount_point_is_looked_at(tmp_path: Path) -> None:
    assert Path("/sys/fs/cgroup") == cpus.CGROUP
    assert 1 <= allowed_cpus() <= 16


def test_linear_algebra_runs_in_one_thread_however_many_there_could_be() -> None:
    look = """
import numpy
from threadpoolctl import threadpool_info
from service.cpus import use_one_blas_thread

def threads():
    return {each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"}

before = threads()
use_one_blas_thread()
print(before, threads())
"""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "2"}
    run = subprocess.run([sys.executable, "-c", look], env=environment, capture_output=True, text=True)
    assert (run.stdout.strip(), run.stderr) == ("{2} {1}", "")
