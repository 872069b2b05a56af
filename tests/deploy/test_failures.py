"""What is lost when replicas die, are replaced, or serve another version: nothing."""

from __future__ import annotations

import time

import pytest

from tests.committed import NEXT_VERSION, VERSION
from tests.deploy.load import Load
from tests.deploy.stack import REPLICAS, Stack, docker, health, run_octet, wait_until

pytestmark = pytest.mark.deploy

LONGEST_S = 1.0


def all_known(stack: Stack) -> bool:
    """Whether the front sends calls to every replica that runs, and knows that it is ready."""
    text = docker("exec", stack.replicas("nginx")[0], "cat", "/tmp/nginx/replicas")
    address = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    addresses = docker("inspect", "--format", address, *stack.replicas()).split()
    known = [line.split() for line in text.splitlines()]
    return set(addresses) <= {address for address, _, state in known if state == "ready"}


def check(load: Load, what: str) -> None:
    print(f"{what}: {load}")
    assert len(load.outcomes) >= 300
    assert not load.failures, load.failures[:5]
    assert load.slowest_s < LONGEST_S


def bring_back(stack: Stack) -> None:
    stack.compose("up", "--detach", "--wait", "--no-build", "--scale", f"service={REPLICAS}")
    wait_until(lambda: all_known(stack), "the front knows both replicas")


def test_a_killed_replica_costs_no_call(stack: Stack, load: Load) -> None:
    with load:
        time.sleep(2)
        docker("kill", "--signal", "KILL", stack.replicas()[0])
        time.sleep(8)
    assert len(stack.replicas()) == REPLICAS - 1
    bring_back(stack)
    check(load, "one of two replicas killed")


def test_a_rolling_restart_costs_no_call(stack: Stack, load: Load) -> None:
    with load:
        time.sleep(1)
        for name in stack.replicas():
            docker("stop", name)
            assert docker("inspect", "--format", "{{.State.ExitCode}}", name).strip() == "0"
            docker("start", name)
            wait_until(lambda name=name: health(name) == "healthy", f"{name} is healthy")
            wait_until(lambda: all_known(stack), "the front knows that it is ready")
        time.sleep(1)
    check(load, "both replicas restarted")


def test_new_replicas_take_the_place_of_old_ones_without_a_lost_call(stack: Stack, load: Load) -> None:
    """As a new image is rolled out: one more replica, then an old one less, until all are new."""
    old = stack.replicas()
    more = ("up", "--detach", "--wait", "--no-build", "--no-recreate", "--scale", f"service={REPLICAS + 1}")
    with load:
        time.sleep(1)
        for name in old:
            stack.compose(*more)
            wait_until(lambda: all_known(stack), "the front knows the new replica")
            docker("stop", name)
            assert docker("inspect", "--format", "{{.State.ExitCode}}", name).strip() == "0"
            docker("rm", name)
        time.sleep(1)
    check(load, "both replicas replaced by new ones")
    assert not set(old) & set(stack.replicas())


def test_all_replicas_switch_to_a_new_version_without_a_lost_call(stack: Stack, load: Load) -> None:
    with load:
        time.sleep(1)
        run_octet("publish", str(stack.models / "mnist-cnn" / VERSION), "--models", str(stack.models))
        wait_until(lambda: load.outcomes[-1].version == NEXT_VERSION, "the new version answers")
        time.sleep(3)
    check(load, "all replicas switched to a new version")
    assert {outcome.version for outcome in load.outcomes} == {VERSION, NEXT_VERSION}
    assert {outcome.version for outcome in load.outcomes[-100:]} == {NEXT_VERSION}


def test_the_front_stays_when_its_balancer_dies(stack: Stack) -> None:
    front = stack.replicas("nginx")[0]
    docker("exec", front, "sh", "-c", "kill -KILL $(cat /tmp/nginx/balancer.pid)")
    with stack.client() as client:
        wait_until(lambda: client.get("/v1/models").status_code == 200, "calls are answered again", 10)
