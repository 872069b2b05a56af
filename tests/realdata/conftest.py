"""The committed models over the real test sets; everything here needs OCTET_DATA_DIR."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from training.data.fsdd import load_fsdd
from training.data.mnist import load_mnist
from training.data.splits import Examples


@pytest.fixture(scope="session")
def data_dir() -> Path:
    folder = os.environ.get("OCTET_DATA_DIR")
    if not folder:
        pytest.skip("OCTET_DATA_DIR names no data directory")
    return Path(folder)


@pytest.fixture(scope="session")
def mnist_test(data_dir: Path) -> Examples:
    return load_mnist(data_dir).test


@pytest.fixture(scope="session")
def fsdd_test(data_dir: Path) -> Examples:
    return load_fsdd(data_dir).test


@pytest.fixture(scope="session")
def fsdd_files(data_dir: Path, fsdd_test: Examples) -> list[bytes]:
    """The test recordings as files, in the order of `fsdd_test`."""
    from training.data.fsdd import FOLDER, checksums

    names = sorted(checksums())
    return [(data_dir / FOLDER / names[i]).read_bytes() for i in fsdd_test.ids]
