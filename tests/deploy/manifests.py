"""The manifests of k8s/ as a cluster would get them."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import ROOT
from tests.deploy.tools import kustomize

OVERLAYS = ("cpu", "gpu", "dev")
# Everything that is rendered by itself; components are part of others.
DIRECTORIES = (*(f"overlays/{name}" for name in OVERLAYS), "kserve", "training/job", "training/seeds")
_VOLUME_OVERLAY = """
resources: [../../base]
namespace: octet
components: [../../components/models-volume]
images: [{name: octet/service, newTag: 0.1.0}]
"""

Manifest = dict[str, Any]


@functools.cache
def rendered(directory: str) -> str:
    """Render a directory below k8s/."""
    return kustomize(ROOT / "k8s" / directory)


def manifests(directory: str) -> list[Manifest]:
    """Return what a directory below k8s/ renders to."""
    return [document for document in yaml.safe_load_all(rendered(directory)) if document]


def rendered_with_volume(folder: Path) -> str:
    """Render an overlay that takes the models from a volume, beside a copy of the manifests."""
    shutil.copytree(ROOT / "k8s", folder / "k8s")
    overlay = folder / "k8s" / "overlays" / "volume"
    overlay.mkdir()
    (overlay / "kustomization.yaml").write_text(_VOLUME_OVERLAY)
    return kustomize(overlay)


def one(documents: list[Manifest], kind: str, name: str = "octet") -> Manifest:
    """Return the one object of a kind and name."""
    (found,) = [each for each in documents if each["kind"] == kind and each["metadata"]["name"] == name]
    return found


def pod_specs(document: Manifest) -> list[Manifest]:
    """Return the pod specifications that an object holds, however deep."""
    spec = document.get("spec", {})
    if document["kind"] == "ServingRuntime":
        return [{"containers": spec["containers"], "volumes": spec["volumes"]}]
    if document["kind"] == "PyTorchJob":
        return [replica["template"]["spec"] for replica in spec["pytorchReplicaSpecs"].values()]
    return [spec["template"]["spec"]] if document["kind"] in ("Deployment", "Job") else []


def settings_of(documents: list[Manifest], container: Manifest) -> dict[str, str]:
    """Return the environment of a container, as its ConfigMaps and its own variables give it."""
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        found |= one(documents, "ConfigMap", source["configMapRef"]["name"])["data"]
    return found | {each["name"]: each["value"] for each in container.get("env", [])}
