"""A pod as Docker runs it: image, user, limits, environment, mounts, probes and stop are the manifest's.

What Docker cannot do the same way: there is no scheduler and no kubelet, so probes are asked from here with
the manifest's own paths, periods and thresholds, and the default seccomp profile is the engine's.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.deploy.manifests import Manifest, one, settings_of
from tests.deploy.stack import docker

_UNITS = {"Ki": "k", "Mi": "m", "Gi": "g"}


@dataclass
class Pod:
    """The containers of one pod specification, one after the other.

    Attributes:
        documents: everything that is applied together with it, such as its ConfigMaps.
        images: image of the manifest -> image that is there.
        secrets: secret -> file -> content.
        folder: holds its volumes.
    """

    documents: list[Manifest]
    images: dict[str, str]
    secrets: dict[str, dict[str, str]]
    folder: Path
    name: str = field(default_factory=lambda: f"octet-pod-{os.getpid()}")

    @property
    def spec(self) -> Manifest:
        """The pod's specification."""
        found: Manifest = one(self.documents, "Deployment")["spec"]["template"]["spec"]
        return found

    @property
    def service(self) -> Manifest:
        """The specification of its one container."""
        (found,) = self.spec["containers"]
        return found

    def initialize(self) -> str:
        """Run its init containers to their ends; return what they print."""
        return "".join(
            docker("run", "--rm", *self._arguments(container), streams=True)
            for container in self.spec["initContainers"]
        )

    @contextmanager
    def running(self) -> Iterator[str]:
        """Run its container in the block; yield the address of its HTTP port."""
        docker("run", "--detach", "--name", self.name, *self._arguments(self.service))
        try:
            address = docker(
                "inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", self.name
            ).strip()
            (port,) = [each["containerPort"] for each in self.service["ports"] if each["name"] == "http"]
            yield f"http://{address}:{port}"
        finally:
            docker("rm", "--force", self.name)

    def passes(self, probe: str, url: str) -> bool:
        """Ask a probe once, as a kubelet does."""
        asked = self.service[probe]
        with suppress(httpx.TransportError):
            answer = httpx.get(url + asked["httpGet"]["path"], timeout=asked["timeoutSeconds"])
            return answer.is_success
        return False

    def wait_for_start(self, url: str) -> float:
        """Ask the startup probe until it passes, for as long as it allows; return the seconds."""
        probe, began_s = self.service["startupProbe"], time.monotonic()
        for _ in range(probe["failureThreshold"]):
            if self.passes("startupProbe", url):
                return time.monotonic() - began_s
            time.sleep(probe["periodSeconds"])
        raise AssertionError(f"it did not start:\n{docker('logs', self.name, streams=True)}")

    def stop(self) -> int:
        """Stop it as a kubelet does, preStop first; return its exit code."""
        time.sleep(self.service["lifecycle"]["preStop"]["sleep"]["seconds"])
        docker("stop", "--time", str(self.spec["terminationGracePeriodSeconds"]), self.name)
        return int(docker("inspect", "--format", "{{.State.ExitCode}}", self.name))

    def _arguments(self, container: Manifest) -> list[str]:
        security, limits = self.spec["securityContext"], container["resources"]["limits"]
        cpus = limits["cpu"]
        arguments = [
            *("--user", f"{security['runAsUser']}:{security['runAsGroup']}"),
            *("--group-add", str(security["fsGroup"])),
            *("--cpus", str(int(cpus[:-1]) / 1000 if cpus.endswith("m") else cpus)),
            *("--memory", _size(limits["memory"]), "--memory-swap", _size(limits["memory"])),
        ]
        own = container["securityContext"]
        arguments += ["--read-only"] if own["readOnlyRootFilesystem"] else []
        arguments += [] if own["allowPrivilegeEscalation"] else ["--security-opt", "no-new-privileges:true"]
        arguments += [part for name in own["capabilities"]["drop"] for part in ("--cap-drop", name)]
        for name, value in settings_of(self.documents, container).items():
            arguments += ["--env", f"{name}={value}"]
        for mount in container["volumeMounts"]:
            arguments += self._mount(mount)
        command = container.get("command", [])
        if command:
            arguments += ["--entrypoint", command[0]]
        return [*arguments, self.images[container["image"]], *command[1:], *container.get("args", [])]

    def _mount(self, mount: Manifest) -> list[str]:
        (volume,) = [each for each in self.spec["volumes"] if each["name"] == mount["name"]]
        if volume.get("emptyDir", {}).get("medium") == "Memory":
            size = _size(volume["emptyDir"]["sizeLimit"])
            return ["--tmpfs", f"{mount['mountPath']}:size={size},mode=1777"]
        path = self.folder / mount["name"]
        if not path.exists():
            self._fill(volume, path)
        return ["--volume", f"{path}:{mount['mountPath']}{':ro' if mount.get('readOnly') else ''}"]

    def _fill(self, volume: Manifest, path: Path) -> None:
        """Make a volume with the owner and the modes that a kubelet gives it."""
        path.mkdir(parents=True)
        group = self.spec["securityContext"]["fsGroup"]
        os.chown(path, 0, group)
        path.chmod(0o2775)
        files: dict[str, str] = {}
        if "configMap" in volume:
            files = one(self.documents, "ConfigMap", volume["configMap"]["name"])["data"]
        elif "secret" in volume:
            files = self.secrets[volume["secret"]["secretName"]]
        for name, content in files.items():
            (path / name).write_text(content)
            os.chown(path / name, 0, group)
            (path / name).chmod(volume.get("secret", {}).get("defaultMode", 0o644))


def _size(text: str) -> str:
    return text[:-2] + _UNITS[text[-2:]]
