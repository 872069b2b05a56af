"""Put a finished bundle into the model repository: whole or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from bundle.manifest import MANIFEST_FILE, Manifest
from bundle.repository import list_bundles
from training.errors import PublishError


def next_version(repository: Path, name: str) -> int:
    """Return the version that the next bundle of a model gets: one more than the largest."""
    if not repository.is_dir():
        return 1
    return max(list_bundles(repository).get(name, [0])) + 1


def digests(files: Mapping[str, bytes]) -> dict[str, str]:
    """Return file name -> SHA-256."""
    return {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}


def publish(manifest: Manifest, files: Mapping[str, bytes], repository: Path) -> Path:
    """Write a bundle so that a reader sees either nothing of it or all of it.

    Everything is written to a hidden directory beside the target, flushed to disk, and renamed. A
    kill at any moment leaves at most a hidden directory, which no reader looks at.

    Args:
        files: every file but the manifest; their digests must be those of the manifest.

    Returns:
        The directory `<repository>/<name>/<version>`.

    Raises:
        PublishError: the version exists or is not the largest, the digests differ, or the disk refuses.
    """
    if digests(files) != dict(sorted(manifest.files.items())):
        raise PublishError("the files are not those that the manifest names")
    target = repository / manifest.name / str(manifest.version)
    if target.exists():
        raise PublishError(f"{target} exists; a published version never changes")
    if manifest.version < next_version(repository, manifest.name):
        raise PublishError(f"{target} would be older than the latest version; versions only grow")
    staging: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".publishing-", dir=target.parent))
        content = manifest.model_dump_json(indent=2).encode() + b"\n"
        for name, data in {**files, MANIFEST_FILE: content}.items():
            _write(staging / name, data)
        staging.chmod(0o755)  # mkdtemp's own mode would hide the bundle from the service's user
        _flush_directory(staging)
        staging.rename(target)  # fails if another job has published this version meanwhile
        _flush_directory(target.parent)
        _flush_directory(repository)
    except OSError as error:
        raise PublishError(f"{target} could not be published: {error}") from error
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)
    return target


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _flush_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
