"""Prometheus sees every replica, and a replica that is killed is told to whoever is on duty."""

from __future__ import annotations

import time

import pytest

from tests.deploy.stack import REPLICAS, Stack, docker, wait_until

pytestmark = pytest.mark.deploy

# Two scrapes, the evaluation, the group: 24 s on a machine at rest, 64 s on a busy one.
LONGEST_S = 150


def told(stack: Stack, name: str, status: str, since_s: float) -> list[float]:
    """When the webhook was told of an alert."""
    return [
        delivery["received_s"]
        for delivery in stack.deliveries()
        for alert in delivery["alerts"]
        if alert["labels"]["alertname"] == name
        and alert["status"] == status
        and delivery["received_s"] > since_s
    ]


def test_every_replica_is_scraped(stack: Stack) -> None:
    wait_until(lambda: len(stack.ask_prometheus('up{job="octet"} == 1')) == REPLICAS, "both replicas are up")
    assert stack.ask_prometheus("octet_model_ready == 1")


def test_the_rules_of_prometheus_are_loaded(stack: Stack) -> None:
    firing = 'ALERTS{alertname="OctetWatchdog", alertstate="firing"}'
    wait_until(lambda: stack.ask_prometheus(firing), "the rules are evaluated")


def test_a_killed_replica_reaches_the_webhook(stack: Stack) -> None:
    wait_until(lambda: len(stack.ask_prometheus('up{job="octet"} == 1')) == REPLICAS, "both replicas are up")
    time.sleep(10)  # two scrapes know it
    began_s = time.time()
    docker("kill", "--signal", "KILL", stack.replicas()[0])
    wait_until(lambda: told(stack, "OctetReplicaDown", "firing", began_s), "the webhook is told", LONGEST_S)
    delay_s = told(stack, "OctetReplicaDown", "firing", began_s)[0] - began_s
    print(f"a killed replica reached the webhook after {delay_s:.0f} s")
    stack.compose("up", "--detach", "--wait", "--no-build", "--scale", f"service={REPLICAS}")
