"""The settings of the service: one documented field each, from `OCTET_…` variables or flags.

A flag beats a variable, which beats the default. `python -m service --help` lists them all.
"""

from __future__ import annotations

from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator
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
    api_keys_file: Path | None = None
    """File of the API keys that calls need, a line `<role>[,<role>] <SHA-256 of the key> [<name>]` each, with
    the roles predict, feedback and admin; by default no key is needed."""
    traces_url: str | None = None
    """Where OpenTelemetry traces are sent by OTLP over HTTP, such as http://collector:4318/v1/traces; by
    default nowhere."""
    traces_share: float = Field(default=1.0, ge=0, le=1)
    """Share of the requests that are traced where their callers have not decided that (traceparent)."""
    shadow_share: float = Field(default=0.0, ge=0, le=1)
    """Share of rows that also run on the fp32 graph, in the background, to tell how often int8 differs."""
    shadow_rows_per_s: float = Field(default=20.0, gt=0, allow_inf_nan=False)
    """Most rows that one process takes for that in a second; what is more is dropped and counted."""
    shadow_min_agreement: float | None = Field(default=None, gt=0, lt=1)
    """Share of compared rows on which int8 and fp32 must agree; where it is lower, the fp32 graph takes over.
    By default it never does."""
    review_url: str | None = None
    """Store of the review queue, which keeps inputs that the models are not sure of: sqlite:///file (four
    slashes for an absolute path) or postgresql://…; by default nothing is kept."""
    review_max_confidence: float = Field(default=0.0, ge=0, le=1)
    """Keep inputs whose answers have a smaller confidence for review, also where the model's own policy
    accepts them."""
    review_max_items: int = Field(default=1000, ge=1)
    """Most inputs of one model that are kept for review."""
    review_max_bytes: int = Field(default=256 * 1024 * 1024, ge=1)
    """Most bytes of inputs of all models together that are kept for review."""
    review_max_age_s: int = Field(default=30 * 24 * 3600, ge=1)
    """Time after which an input is not kept for review any more, unless it has a label that was not exported
    yet."""
    review_rows_per_s: int = Field(default=500, ge=1)
    """Rows that each process judges for review a second, at most; those that a caller of :confidence had
    judged cost nothing."""
    monitor_rows_per_s: int = Field(default=100, ge=0)
    """Rows that each process judges a second, shared out among its versions, for the live figures and drift
    tests, beside those that callers of `:confidence` ask about; 0 for none."""
    feedback_key_file: Path | None = None
    """File of the key that signs prediction ids, and on a second line the one before it, whose ids are still
    taken; by default a random key for each start."""
    feedback_max_age_s: int = Field(default=30 * 24 * 3600, ge=1)
    """How long after an answer its right label is taken."""
    feedback_redis_url: str | None = None
    """Redis (redis://…, rediss://… or unix://…) by which all replicas know what feedback was counted, so that
    each counts once; by default each process refuses the repeats that it saw itself."""
    log_format: Literal["text", "json"] = "text"
    """One line a request, as text or as a JSON object. Payloads are never logged."""

    @field_validator("grpc_port", mode="before")
    @classmethod
    def _check_grpc_port(cls, value: object) -> object:
        text = str(value)
        if text != "off" and not (text.isascii() and text.isdigit() and int(text) <= _LARGEST_PORT):
            raise ValueError(f'must be "off" or a port of at most {_LARGEST_PORT}')
        return value

    @field_validator("feedback_redis_url")
    @classmethod
    def _check_feedback_redis_url(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("must begin with redis://, rediss:// or unix://")
        if value is not None and find_spec("redis") is None:
            raise ValueError("it needs the package redis, which the extra 'redis' installs")
        return value

    @field_validator("traces_url")
    @classmethod
    def _check_traces_url(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://")):
            raise ValueError("must be a URL of http or https")
        if value is not None and find_spec("opentelemetry") is None:
            raise ValueError("traces need OpenTelemetry, which the extra 'tracing' installs")
        return value

    @field_validator("shadow_min_agreement")
    @classmethod
    def _check_min_agreement(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is not None and not info.data.get("shadow_share"):
            raise PydanticCustomError("no_share", "needs a shadow_share over 0, or nothing is compared")
        return value

    @field_validator("review_url")
    @classmethod
    def _check_review_url(cls, value: str | None) -> str | None:
        schemes = ("sqlite:///", "postgresql://", "postgres://")
        if value is not None and not (value.startswith(schemes) and value not in schemes):
            raise ValueError("must be sqlite:///file or postgresql://…")
        if value is not None and not value.startswith("sqlite") and find_spec("psycopg") is None:
            raise ValueError("PostgreSQL needs psycopg, which the extra 'postgres' installs")
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
        return self.model_control != "none" and self.is_private

    @property
    def is_private(self) -> bool:
        """Whether only this machine can reach the service."""
        return _is_loopback(self.host)

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
