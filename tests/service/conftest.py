"""Fixtures of the service's tests."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(params=[True, False], ids=["lane", "routes"])
def lane(request: pytest.FixtureRequest) -> bool:
    """Both ways through the service, for `running_app` and `gated_app`."""
    return bool(request.param)


@pytest.fixture
def restore_logging() -> Iterator[None]:
    """Undo what `configure_logs` does to the root logger of this process."""
    root, uvicorn = logging.getLogger(), logging.getLogger("uvicorn.error")
    handlers, levels = root.handlers[:], (root.level, uvicorn.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    uvicorn.setLevel(levels[1])
