"""The manifests: what a cluster would refuse, what would hurt, and what must agree with the project.

There is no cluster here: schemas, and the rules that these tests know, stand in for an API server.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import Settings
from tests.conftest import ROOT
from tests.deploy.exposition import exposed
from tests.deploy.manifests import (
    DIRECTORIES,
    OVERLAYS,
    Manifest,
    manifests,
    one,
    pod_specs,
    rendered,
    rendered_with_volume,
    settings_of,
)
from tests.deploy.rules import RULE_FILES, groups
from tests.deploy.tools import deploy_tool, read_yaml, run

pytestmark = pytest.mark.deploy

K8S = ROOT / "k8s"
SCHEMAS = Path(__file__).parent / "schemas"
# preStop can sleep by itself from 1.30 on.
VERSIONS = ("1.30", "1.31", "1.32", "1.33", "1.34", "1.35", "1.36", "1.37")
RUNNING = ("overlays/cpu", "overlays/gpu", "overlays/dev", "training/job", "training/seeds")
# The slowest batch that a model of this project may take to run.
SLOWEST_BATCH_S = 5
overlay = pytest.mark.parametrize("name", OVERLAYS)


def deployment(name: str) -> Manifest:
    return one(manifests(f"overlays/{name}"), "Deployment")


def pod(name: str) -> Manifest:
    return deployment(name)["spec"]["template"]["spec"]


def service(name: str) -> Manifest:
    return pod(name)["containers"][0]


def settings(name: str) -> Settings:
    """Read the settings of the pods as the service would."""
    found = settings_of(manifests(f"overlays/{name}"), service(name))
    assert {key.removeprefix("OCTET_").lower() for key in found} <= set(Settings.model_fields)
    return Settings(**{key.removeprefix("OCTET_").lower(): value for key, value in found.items()})


def verdicts(versions: Sequence[str], paths: Iterable[Path]) -> list[tuple[str, str, str, str]]:
    """Return (version, file, kind, verdict) of every object of some files."""
    script = Path(__file__).with_name("validate.py")
    lines = run(deploy_tool("python"), script, ",".join(versions), SCHEMAS, *paths).splitlines()
    rows = [line.split("\t") for line in lines]
    return [(version, file, kind, said) for version, file, kind, _, said in rows]


def test_kubernetes_knows_every_field(tmp_path: Path) -> None:
    texts = {directory.replace("/", "-"): rendered(directory) for directory in DIRECTORIES}
    texts["volume"] = rendered_with_volume(tmp_path / "copy")
    for directory in ("kserve", "training/seeds"):
        for document in manifests(directory):
            for index, spec in enumerate(pod_specs(document)):
                held = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "held"}, "spec": spec}
                texts[f"{document['kind']}-{index}"] = yaml.safe_dump(held)
    for name, text in texts.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    found = verdicts(VERSIONS, sorted(tmp_path.glob("*.yaml")))
    assert [each for each in found if each[3] != "valid"] == []
    assert {path.stem for path in SCHEMAS.glob("*.json")} <= {kind for _, _, kind, _ in found}
    deployments = [version for version, _, kind, _ in found if kind == "Deployment"]
    assert sorted(deployments) == sorted(VERSIONS * (len(OVERLAYS) + 1))


def test_what_kubernetes_would_refuse_is_found(tmp_path: Path) -> None:
    documents = {
        each["kind"]: each
        for directory in ("overlays/cpu", "kserve", "training/seeds")
        for each in manifests(directory)
        if (SCHEMAS / f"{each['kind']}.json").exists()
    }
    assert len(documents) >= 5
    text = rendered("overlays/dev")
    wrong = {
        "name": text.replace("readinessProbe:", "readynessProbe:"),
        "type": text.replace("failureThreshold: 6", "failureThreshold: six"),
        **{
            kind: yaml.safe_dump({**each, "spec": {**each["spec"], "x": 1}})
            for kind, each in documents.items()
        },
    }
    for name, content in wrong.items():
        (tmp_path / f"{name}.yaml").write_text(content)
    found = verdicts(VERSIONS[:1], sorted(tmp_path.glob("*.yaml")))
    refused = {file: kind for _, file, kind, said in found if said != "valid"}
    assert refused == {"name": "Deployment", "type": "Deployment", **{kind: kind for kind in documents}}


def test_checkov_finds_nothing(tmp_path: Path) -> None:
    checkov = ROOT / ".venv-checkov" / "bin" / "checkov"
    assert checkov.exists(), "checkov is missing: make install-deploy"
    for directory in RUNNING:
        (tmp_path / f"{directory.replace('/', '-')}.yaml").write_text(rendered(directory))
    config = Path(__file__).with_name("checkov.yaml")
    said = run(checkov, "--config-file", config, "--directory", tmp_path)
    assert re.search(r"Passed checks: (\d+), Failed checks: 0", said) or "Failed" not in said
    weak = tmp_path / "overlays-dev.yaml"
    weak.write_text(weak.read_text().replace("readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false"))
    assert "CKV_K8S_22" in run(checkov, "--config-file", config, "--directory", tmp_path, code=1)


def test_what_is_generated_is_up_to_date(tmp_path: Path) -> None:
    run(sys.executable, K8S / "generate.py", tmp_path)
    for path in (K8S / "base" / "trusted-digests", K8S / "components" / "monitoring" / "rules.yaml"):
        assert (tmp_path / path.name).read_text() == path.read_text(), "make manifests"


def test_the_alerts_are_those_of_compose() -> None:
    (rule,) = [each for each in manifests("overlays/cpu") if each["kind"] == "PrometheusRule"]
    expected = [group for path in RULE_FILES if path.name != "monitoring.yml" for group in groups(path)]
    assert rule["spec"]["groups"] == expected
    assert len(expected) >= 6


def test_prometheus_finds_the_replicas_under_the_name_that_the_rules_know() -> None:
    documents = manifests("overlays/cpu")
    monitor = one(documents, "ServiceMonitor")["spec"]
    wanted = monitor["selector"]["matchLabels"].items()
    (found,) = [
        each
        for each in documents
        if each["kind"] == "Service" and wanted <= each["metadata"]["labels"].items()
    ]
    assert found["metadata"]["labels"][monitor["jobLabel"]] == "octet"
    (endpoint,) = monitor["endpoints"]
    assert endpoint["port"] in {port["name"] for port in found["spec"]["ports"]}
    assert float(endpoint["interval"].removesuffix("s")) < settings("cpu").drain_delay_s


@overlay
def test_selectors_meet_the_pods_and_peers_are_not_mistaken_for_them(name: str) -> None:
    documents = manifests(f"overlays/{name}")
    labels = deployment(name)["spec"]["template"]["metadata"]["labels"].items()
    selectors = [deployment(name)["spec"]["selector"]["matchLabels"]]
    selectors += [each["spec"]["selector"] for each in documents if each["kind"] == "Service"]
    policy = one(documents, "NetworkPolicy")["spec"]
    selectors.append(policy["podSelector"]["matchLabels"])
    selectors += [
        each["spec"]["selector"]["matchLabels"] for each in documents if each["kind"] == "PodDisruptionBudget"
    ]
    assert len(selectors) >= 4
    for selector in selectors:
        assert selector
        assert selector.items() <= labels
    assert policy["egress"] == []
    peers = [peer for rule in policy["ingress"] for peer in rule["from"]]
    assert {"podSelector": {"matchLabels": {"octet-client": "true"}}} in peers


@overlay
def test_the_service_gets_settings_that_it_takes(name: str) -> None:
    chosen = settings(name)
    assert chosen.host == "0.0.0.0"
    mounts = {mount["mountPath"] for mount in service(name)["volumeMounts"]}
    for path in (chosen.models, chosen.trusted_digests, chosen.api_keys_file, chosen.feedback_key_file):
        assert path is None or any(path.is_relative_to(mount) for mount in mounts)
    assert (chosen.api_keys_file is None) == (name == "dev")
    ports = {port["name"]: port["containerPort"] for port in service(name)["ports"]}
    assert ports == {"http": chosen.port, "grpc": chosen.grpc_port}
    # Kubernetes would set OCTET_PORT=tcp://… for a Service of this name.
    assert pod(name)["enableServiceLinks"] is False


@overlay
def test_a_stop_has_the_time_that_it_needs(name: str) -> None:
    chosen = settings(name)
    waits_s = service(name)["lifecycle"]["preStop"]["sleep"]["seconds"]
    needed_s = waits_s + chosen.drain_delay_s + chosen.longest_request_s + SLOWEST_BATCH_S
    assert pod(name)["terminationGracePeriodSeconds"] > needed_s


@overlay
def test_probes_ask_what_they_mean(name: str) -> None:
    container = service(name)
    assert container["startupProbe"]["httpGet"]["path"] == "/readyz"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    noticed_s = container["readinessProbe"]["periodSeconds"] * container["readinessProbe"]["failureThreshold"]
    if name != "dev":
        assert noticed_s < settings(name).drain_delay_s
    patience_s = container["livenessProbe"]["periodSeconds"] * container["livenessProbe"]["failureThreshold"]
    assert patience_s >= 60


@pytest.mark.parametrize("directory", RUNNING)
def test_pods_are_restricted_and_own_whole_cpus(directory: str) -> None:
    specs = [spec for document in manifests(directory) for spec in pod_specs(document)]
    assert specs
    for spec in specs:
        security = spec["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False
            assert own["readOnlyRootFilesystem"] is True
            assert own["capabilities"] == {"drop": ["ALL"]}
            resources = container["resources"]
            for kind in ("cpu", "memory"):
                assert resources["requests"][kind] == resources["limits"][kind]
        assert spec["containers"][0]["resources"]["limits"]["cpu"].isdigit()
        assert not any("hostPath" in volume for volume in spec.get("volumes", []))


@overlay
def test_a_roll_out_takes_no_replica_away(name: str) -> None:
    strategy = deployment(name)["spec"]["strategy"]["rollingUpdate"]
    assert strategy["maxUnavailable"] == 0
    keys = {constraint["topologyKey"] for constraint in pod(name)["topologySpreadConstraints"]}
    assert keys == {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_the_autoscaler_asks_for_what_is_measured(name: str) -> None:
    documents = manifests(f"overlays/{name}")
    scaler = one(documents, "HorizontalPodAutoscaler")["spec"]
    assert scaler["scaleTargetRef"]["name"] == deployment(name)["metadata"]["name"]
    assert "replicas" not in deployment(name)["spec"]
    asked = [each["pods"]["metric"]["name"] for each in scaler["metrics"] if each["type"] == "Pods"]
    assert asked == ["octet_queue_depth"]
    assert set(asked) <= exposed()
    adapter = read_yaml(K8S / "components" / "monitoring" / "prometheus-adapter.yaml")["rules"]["custom"]
    assert [each["seriesQuery"].partition("{")[0] for each in adapter] == asked
    budget = one(documents, "PodDisruptionBudget")["spec"]
    assert budget["maxUnavailable"] < scaler["minReplicas"]


def test_the_front_lets_in_as_much_as_the_service_and_closes_what_is_not_for_callers() -> None:
    paths: list[dict[str, Any]] = []
    for each in manifests("overlays/cpu"):
        if each["kind"] == "Ingress":
            size = each["metadata"]["annotations"]["nginx.ingress.kubernetes.io/proxy-body-size"]
            assert int(size) == settings("cpu").max_body_bytes
            paths += each["spec"]["rules"][0]["http"]["paths"]
    prefixes = [each["path"] for each in paths if each["pathType"] == "Prefix"]
    exact = [each["path"] for each in paths if each["pathType"] == "Exact"]

    def is_open(path: str) -> bool:
        return path in exact or any(path == prefix or path.startswith(f"{prefix}/") for prefix in prefixes)

    assert is_open("/v1/models/mnist-cnn:predict")
    assert is_open("/v2/models/mnist-cnn/infer")
    assert is_open("/v2/health/ready")
    assert is_open("/inference.GRPCInferenceService/ModelInfer")
    for closed in ("/metrics", "/healthz", "/readyz", "/v2/repository/index", "/v2/repository/models/m/load"):
        assert not is_open(closed)
