"""The settings of the service: one documented field each, from `OCTET_…` variables or flags.

A flag beats a variable, which beats the default. `python -m service --help` lists them all.
"""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

from bundle.decoding import Limits
from bundle.serving import VersionPolicy, parse_policy
from bundle.session import ProviderPolicy
from service.cpus import allowed_cpus

_LARGEST_PORT = 65535


class Settings(BaseSettings):
    """Serve the bundles of a model repository over HTTP."""

    model_config = SettingsConfigDict(
        env_prefix="OCTET_",
        frozen=True,
        use_attribute_docstrings=True,
        cli_prog_name="python -m service",
        cli_kebab_case=True,
        cli_exit_on_error=False,
        env_ignore_empty=True,
    )

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for every interface."""
    port: int = Field(default=8000, ge=0, le=_LARGEST_PORT)
    """Port to listen on; 0 for any free one."""
    grpc_port: int | Literal["off"] = 8001
    """Port of the Open Inference Protocol over gRPC; 0 for any free one, "off" for none."""
    models: Path = Path("models")
    """The model repository: <models>/<name>/<version>/."""
    provider: ProviderPolicy = "cpu"
    """Execution provider of ONNX Runtime. "require-…" stops the start where it is missing."""
    workers: int = Field(default=1, ge=1)
    """Processes that share the port, each with all models."""
    threads: int | None = Field(default=None, ge=1)
    """Batches that one process runs at the same time; by default the CPUs that this container may use
    (affinity and cgroup quota), divided by the workers."""
    max_body_bytes: int = Field(default=16 * 1024 * 1024, ge=1)
    """Largest request body; more is answered 413."""
    max_pixels: int = Field(default=50_000_000, ge=1)
    """Largest image, width times height, checked before decoding."""
    max_audio_s: float = Field(default=30.0, gt=0)
    """Longest sound in seconds, checked before decoding."""
    max_rows: int = Field(default=1024, ge=1)
    """Most rows in one request."""
    max_queue_size: int = Field(default=4096, ge=1)
    """Most rows that wait for one model; more is answered 429."""
    deadline_ms: int = Field(default=10_000, ge=1)
    """Longest time from a whole request to its answer; more is answered 504. A request may ask for less
    with X-Timeout-Ms."""
    body_timeout_s: float = Field(default=30.0, gt=0)
    """Longest time for a request's body to arrive; more is answered 408."""
    drain_delay_s: float = Field(default=5.0, ge=0)
    """After SIGTERM: how long requests are still served while /readyz already answers 503, so that load
    balancers notice before the port closes."""
    versions: str = "all"
    """Versions of a model that are served where its serving.json says nothing: "all" or "latest:N"."""
    model_control: Literal["explicit", "poll", "none"] | None = None
    """Who may change what is served: "explicit", callers of the repository API; "poll", who changes the model
    repository, and callers on a loopback address; "none", nobody. By default "explicit" on a loopback address
    and "none" on others."""
    poll_s: float = Field(default=5.0, ge=0.1)
    """With "poll": how often to look for changes of the repository that the file system does not tell of."""
    control_timeout_s: float = Field(default=120.0, gt=0)
    """Longest time for all workers to apply a change of what is served."""
    trusted_digests: Path | None = None
    """File of the bundles that may be served, a line `<sha256 of manifest.json>  <name>/<version>` each; by
    default any may."""
    log_format: Literal["text", "json"] = "text"
    """One line a request, as text or as a JSON object. Payloads are never logged."""

    @field_validator("grpc_port", mode="before")
    @classmethod
    def _check_grpc_port(cls, value: object) -> object:
        text = str(value)
        if text != "off" and not (text.isascii() and text.isdigit() and int(text) <= _LARGEST_PORT):
            raise ValueError(f'must be "off" or a port of at most {_LARGEST_PORT}')
        return value

    @field_validator("versions")
    @classmethod
    def _check_versions(cls, value: str) -> str:
        try:
            parse_policy(value)
        except ValueError as error:
            raise PydanticCustomError("version_policy", "{reason}", {"reason": str(error)}) from error
        return value

    @property
    def version_policy(self) -> VersionPolicy:
        """Versions of a model that are served where its serving.json says nothing."""
        return parse_policy(self.versions)

    @property
    def follows_repository(self) -> bool:
        """Whether changes of the repository are applied as they happen."""
        return self.model_control == "poll"

    @property
    def takes_commands(self) -> bool:
        """Whether callers may change what is served."""
        if self.model_control == "explicit":
            return True
        return self.model_control != "none" and _is_loopback(self.host)

    @property
    def limits(self) -> Limits:
        """How much a request may hold."""
        return Limits(max_rows=self.max_rows, max_pixels=self.max_pixels, max_audio_s=self.max_audio_s)

    @property
    def longest_request_s(self) -> float:
        """How long a request is in flight at most: its body may take to come, and its answer to be ready."""
        return self.body_timeout_s + self.deadline_ms / 1e3

    @property
    def run_threads(self) -> int:
        """How many batches one process runs at the same time."""
        return self.threads or max(1, allowed_cpus() // self.workers)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
