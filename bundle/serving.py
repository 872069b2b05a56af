"""What is served of a model: `models/<name>/serving.json`, which versions and under which names.

The file is optional, lies beside the versions, and is the truth for every server that reads the repository.
It is replaced whole or not at all, so that aliases which belong together are switched together.
"""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, ValidationError, model_validator

from bundle.errors import ServingError
from bundle.manifest import ModelName
from bundle.media import Frozen

SERVING_FILE = "serving.json"
# What an unversioned request gets where the alias is set; otherwise the latest version.
STABLE = "stable"
# What a share of the unversioned requests gets.
CANARY = "canary"

Version = Annotated[int, Field(gt=0, strict=True)]


class Latest(Frozen):
    """The policy "latest n"."""

    latest: Version


def _form_of(value: Any) -> str | None:
    if value == "all":
        return "all"
    if isinstance(value, (dict, Latest)):
        return "latest"
    return "named" if isinstance(value, (list, tuple)) else None


VersionPolicy = Annotated[
    Annotated[Literal["all"], Tag("all")]
    | Annotated[Latest, Tag("latest")]
    | Annotated[tuple[Version, ...], Field(min_length=1), Tag("named")],
    Discriminator(
        _form_of,
        custom_error_type="version_policy",
        custom_error_message='must be "all", {"latest": n} or a list of versions',
    ),
]


class Serving(Frozen):
    """The content of a `serving.json`.

    Attributes:
        versions: "all", the latest n, or those named; None leaves it to the server's setting.
        aliases: alias -> version. Versions that have one are always served.
        canary_weight: the share of unversioned requests that the alias "canary" gets.
    """

    versions: VersionPolicy | None = None
    aliases: dict[ModelName, Version] = Field(default_factory=dict)
    canary_weight: float = Field(default=0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.canary_weight > 0 and CANARY not in self.aliases:
            raise ValueError("canary_weight is set, but there is no alias 'canary'")
        return self

    def named(self) -> set[int]:
        """Return the versions that must be served: those that are listed or have an alias."""
        return {*(self.versions if isinstance(self.versions, tuple) else ()), *self.aliases.values()}

    def check_published(self, published: Sequence[int], where: str = SERVING_FILE) -> None:
        """Check that every version that is named is there.

        Args:
            where: they are named, for the message.

        Raises:
            ServingError: one is not.
        """
        for version in sorted(self.named()):
            if version not in published:
                known = ", ".join(map(str, published)) or "none"
                raise ServingError(f"{where}: there is no version {version}; there are: {known}")

    def pick(
        self, published: Sequence[int], default: VersionPolicy, loads: Callable[[int], bool]
    ) -> list[int]:
        """Return the versions to serve, oldest first.

        Args:
            published: the versions that the repository holds.
            default: the policy where the file names none.
            loads: whether a version can be served. Of "latest n" one that cannot makes room for the next
                older one. It is asked newest first, and not for versions that nobody wants.
        """
        policy = self.versions or default
        candidates = policy if isinstance(policy, tuple) else published
        most = policy.latest if isinstance(policy, Latest) else len(candidates)
        chosen = islice(filter(loads, sorted(candidates, reverse=True)), most)
        return sorted({*chosen, *filter(loads, self.aliases.values())})


def parse_policy(text: str) -> VersionPolicy:
    """Return the policy that a setting names: `all` or `latest:N`.

    Raises:
        ValueError: it is neither.
    """
    if text == "all":
        return "all"
    if not (match := re.fullmatch(r"latest:([1-9][0-9]{0,8})", text, re.ASCII)):
        raise ValueError(f"must be 'all' or 'latest:N', not {text!r}")
    return Latest(latest=int(match[1]))


def parse_serving(content: bytes | str, where: str = SERVING_FILE) -> Serving:
    """Parse and check the content of a `serving.json`.

    Args:
        where: it comes from, for the message.

    Raises:
        ServingError: it is malformed or breaks the schema.
    """
    try:
        return Serving.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field, *path = first["loc"] or ("the document",)
        place = ".".join(map(str, (field, *(path[1:] if field == "versions" else path))))
        what = "there is no such field" if first["type"] == "extra_forbidden" else first["msg"]
        raise ServingError(f"{where}: {place}: {what.removeprefix('Value error, ')}") from error


def read_serving(repository: Path, name: str) -> Serving:
    """Return what is to be served of a model; the default where there is no file.

    Raises:
        ServingError: the file cannot be read or understood.
    """
    path = repository / name / SERVING_FILE
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return Serving()
    except OSError as error:
        raise ServingError(f"{path}: it cannot be read ({error.strerror})") from error
    return parse_serving(content, str(path))


def write_serving(repository: Path, name: str, serving: Serving) -> None:
    """Replace a model's `serving.json`, whole or not at all.

    Raises:
        ServingError: the disk refuses.
    """
    path = repository / name / SERVING_FILE
    partial = path.with_name(f".{SERVING_FILE}-{uuid.uuid4().hex}")
    content = json.dumps(serving.model_dump(mode="json"), indent=2) + "\n"
    try:
        with partial.open("x", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise ServingError(f"{path}: it cannot be written ({error.strerror})") from error
