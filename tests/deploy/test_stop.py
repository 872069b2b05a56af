"""A stop in good order, which ends what the other tests use: pytest runs this file last by its name."""

from __future__ import annotations

import json
import time

import pytest

from tests.deploy.stack import Stack, docker

pytestmark = pytest.mark.deploy


def test_everything_stops_with_exit_code_0(stack: Stack) -> None:
    names = [
        name for part in ("service", "nginx", "prometheus", "alertmanager") for name in stack.replicas(part)
    ]
    began_s = time.monotonic()
    stack.compose("stop")
    print(f"stopped in {time.monotonic() - began_s:.1f} s")
    states = {name: json.loads(docker("inspect", "--format", "{{json .State}}", name)) for name in names}
    assert {name: (state["ExitCode"], state["OOMKilled"]) for name, state in states.items()} == dict.fromkeys(
        names, (0, False)
    )
