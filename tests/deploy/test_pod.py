"""The pod of the manifests really starts, answers, stops, and takes no model that nobody vouches for."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import yaml

from tests.committed import NEXT_VERSION, VERSION
from tests.conftest import ROOT
from tests.deploy.manifests import Manifest, manifests, one, rendered_with_volume
from tests.deploy.pod import Pod
from tests.deploy.stack import docker

pytestmark = pytest.mark.deploy

PROVISION = ROOT / "k8s" / "base" / "provision.py"
KEY = "key-of-a-test"
SECRETS = {
    "octet-keys": {
        "api-keys": f"predict {hashlib.sha256(KEY.encode()).hexdigest()} test\n",
        "feedback-key": "f" * 43 + "\n",
    }
}
ROWS = {"instances": np.zeros((2, 28, 28), np.uint8).tolist()}


@pytest.fixture(scope="module")
def images(engine: str) -> Iterator[dict[str, str]]:
    """Build the images that the manifests name."""
    tags = {"octet/service:0.1.0": "octet/service:pod-test", "octet/models:1": "octet/models:pod-test"}
    service, models = tags.values()
    docker("build", "--quiet", "--file", "docker/service.Dockerfile", "--tag", service, str(ROOT))
    arguments = ("--file", "docker/models.Dockerfile", "--build-arg", f"SERVICE_IMAGE={service}")
    docker("build", "--quiet", *arguments, "--tag", models, str(ROOT / "models"))
    yield tags
    docker("image", "rm", *tags.values())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that containers can look into."""
    for path in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        path.chmod(0o755)
    return tmp_path


def make_pod(documents: list[Manifest], images: dict[str, str], folder: Path) -> Pod:
    return Pod(documents, images, SECRETS, folder / "volumes")


@pytest.mark.parametrize("overlay", ["cpu", "dev"])
def test_the_pod_starts_answers_and_stops(overlay: str, images: dict[str, str], folder: Path) -> None:
    pod = make_pod(manifests(f"overlays/{overlay}"), images, folder)
    provisioned = pod.initialize()
    assert provisioned == (ROOT / "k8s" / "base" / "trusted-digests").read_text()
    with pod.running() as url:
        print(f"the pod of {overlay} was ready after {pod.wait_for_start(url):.1f} s")
        assert pod.passes("readinessProbe", url)
        assert pod.passes("livenessProbe", url)
        needs_key = overlay != "dev"
        answer = httpx.post(f"{url}/v1/models/mnist-cnn:predict", json=ROWS, timeout=10)
        assert answer.status_code == (401 if needs_key else 200)
        headers = {"authorization": f"Bearer {KEY}"}
        answer = httpx.post(f"{url}/v1/models/mnist-cnn:predict", json=ROWS, headers=headers, timeout=10)
        assert answer.status_code == 200
        exposition = httpx.get(f"{url}/metrics", timeout=10).text
        cpus = int(pod.service["resources"]["limits"]["cpu"])
        assert f"octet_threads {cpus:.1f}\n" in exposition
        began_s = time.monotonic()
        assert pod.stop() == 0
        assert time.monotonic() - began_s < pod.spec["terminationGracePeriodSeconds"]
        assert "random key" not in docker("logs", pod.name, streams=True) or overlay == "dev"


def test_the_pod_serves_a_volume_and_refuses_one_that_was_changed(
    images: dict[str, str], folder: Path
) -> None:
    documents = [each for each in yaml.safe_load_all(rendered_with_volume(folder / "copy")) if each]
    digests = (ROOT / "k8s" / "base" / "trusted-digests").read_text()
    documents.append(
        {"kind": "ConfigMap", "metadata": {"name": "octet-trusted"}, "data": {"trusted-digests": digests}}
    )
    pod = make_pod(documents, images, folder)
    shutil.copytree(ROOT / "models", pod.folder / "models")
    for path in (pod.folder, *pod.folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    assert pod.initialize() == digests
    with pod.running() as url:
        pod.wait_for_start(url)
    labels = next((pod.folder / "models").rglob("*.onnx"))
    labels.write_bytes(labels.read_bytes()[:-1] + b"\0")
    with pytest.raises(AssertionError, match="it was changed"):
        pod.initialize()


def provision(*arguments: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(PROVISION), *map(str, arguments)]
    environment = {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def trusted(tmp_path: Path) -> Path:
    """The digests of the committed bundles."""
    path = tmp_path / "trusted"
    shutil.copy(ROOT / "k8s" / "base" / "trusted-digests", path)
    return path


def test_what_is_copied_is_the_repository(trusted: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "models", tmp_path / "target"
    shutil.copytree(ROOT / "models", source)
    (source / "mnist-cnn" / "serving.json").write_text('{"aliases": {"stable": 3}}')
    for _ in range(2):  # an init container may run again
        done = provision(trusted, source, target)
        assert (done.returncode, done.stderr) == (0, "")

    def files(folder: Path) -> dict[str, bytes]:
        return {
            str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()
        }

    manifests_of = {name for name in files(source) if name.count("/") == 2 or name.endswith("serving.json")}
    assert {name: content for name, content in files(source).items() if name in manifests_of} == files(target)


def damage(source: Path) -> None:
    path = next(source.rglob("*.onnx"))
    path.write_bytes(path.read_bytes() + b"\0")


def add_unlisted(source: Path) -> None:
    shutil.copytree(source / "mnist-cnn" / VERSION, source / "mnist-cnn" / NEXT_VERSION)
    manifest = source / "mnist-cnn" / NEXT_VERSION / "manifest.json"
    manifest.write_text(
        re.sub(rf'"version": {VERSION}\b', f'"version": {NEXT_VERSION}', manifest.read_text())
    )


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (damage, "it was changed"),
        (add_unlisted, f"does not list mnist-cnn/{NEXT_VERSION}"),
        (shutil.rmtree, "is not a directory"),
    ],
)
def test_nothing_is_copied_of_a_repository_that_is_not_whole(
    spoil: object, reason: str, trusted: Path, tmp_path: Path
) -> None:
    source, target = tmp_path / "models", tmp_path / "target"
    shutil.copytree(ROOT / "models", source)
    spoil(source)  # type: ignore[operator]
    done = provision(trusted, source, target)
    assert done.returncode == 1
    assert reason in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert not target.exists()


@pytest.mark.parametrize("directory", ["training/job", "training/seeds"])
def test_the_training_jobs_say_what_the_command_takes(directory: str) -> None:
    from pydantic_settings import CliApp

    from training.__main__ import Command

    (job,) = [each for each in manifests(directory) if each["kind"] in ("Job", "PyTorchJob")]
    if job["kind"] == "Job":
        container = job["spec"]["template"]["spec"]["containers"][0]
        assert container["command"] == ["python", "-m", "training"]
        arguments = container["args"]
    else:
        container = job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0]
        starter = container["args"][0].replace("os.execv(", "print(").replace("sys.executable, [", "[")
        environment = {"RANK": "2", "WORLD_SIZE": "3", "MASTER_ADDR": "x", "MASTER_PORT": "1"}
        said = subprocess.run(
            [sys.executable, "-c", starter], env=environment, capture_output=True, text=True, check=True
        ).stdout
        arguments = yaml.safe_load(said)[3:]
        assert "--models-dir=/candidates/seed-2" in arguments
    chosen = CliApp.run(Command, cli_args=list(arguments)).mnist_cnn
    assert chosen is not None
    mounts = [Path(mount["mountPath"]) for mount in container["volumeMounts"]]
    for path in (chosen.data_dir, chosen.runs_dir, chosen.models_dir):
        assert any(path.is_relative_to(mount) for mount in mounts)
    assert one(manifests(directory), "PersistentVolumeClaim", "octet-candidates")
