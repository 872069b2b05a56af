"""The model repository: `models/<name>/<version>/`, and what it takes for a bundle to be whole."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from bundle.errors import BundleError, IntegrityError, ManifestError
from bundle.manifest import (
    MANIFEST_FILE,
    NAME_PATTERN,
    REPORT_FILE,
    REPORT_PAGE,
    Manifest,
    Precision,
    parse_manifest,
)

# Verified with the others, but not held: nothing that serves needs them.
_READ_LATER = frozenset({REPORT_FILE, REPORT_PAGE})


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files are all there and unchanged at the time of reading.

    Attributes:
        directory: `models/<name>/<version>`.
        files: file name -> content of all but the report; small enough to hold, and what was verified is what
            is used.
        manifest_sha256: digest of `manifest.json`, which in turn pins every other file.
    """

    directory: Path
    manifest: Manifest
    files: dict[str, bytes]
    manifest_sha256: str

    def graph(self, precision: Precision) -> bytes:
        """Return the ONNX file of one precision."""
        return self.files[self.manifest.graphs[precision].file]

    def read(self, name: str) -> bytes:
        """Return the content of a file of the manifest; the report is read and verified anew.

        Raises:
            IntegrityError: it is missing or was changed meanwhile.
        """
        if name in self.files:
            return self.files[name]
        content = _read(self.directory, name)
        _verify(self.directory / name, content, self.manifest.files[name])
        return content


def list_bundles(repository: Path) -> dict[str, list[int]]:
    """Return name -> versions in growing order of every bundle directory in a model repository.

    Directories whose name is no model name (such as `.publishing-…`) or no version are left alone.

    Raises:
        BundleError: the repository is not a directory.
    """
    if not repository.is_dir():
        raise BundleError(f"the model repository {repository} is not a directory")
    found: dict[str, list[int]] = {}
    for folder in sorted(repository.iterdir()):
        if not folder.is_dir() or not re.fullmatch(NAME_PATTERN, folder.name):
            continue
        versions = [
            int(entry.name) for entry in folder.iterdir() if entry.is_dir() and _is_version(entry.name)
        ]
        if versions:
            found[folder.name] = sorted(versions)
    return found


def read_bundle(directory: Path) -> Bundle:
    """Read a bundle and verify it: the manifest's schema, its place, and every file's digest.

    Raises:
        ManifestError: the manifest cannot be understood, or names another model or version than
            the directory does.
        IntegrityError: a file is missing, changed, or leads outside the directory.
    """
    path = directory / MANIFEST_FILE
    content = _read(directory, MANIFEST_FILE)
    manifest = parse_manifest(content, path)
    if (manifest.name, str(manifest.version)) != (directory.parent.name, directory.name):
        raise ManifestError(
            f"{path}: it describes {manifest.name}/{manifest.version}, "
            f"but lies in {directory.parent.name}/{directory.name}"
        )
    files = {name: _read(directory, name) for name in manifest.files}
    for name, digest in manifest.files.items():
        _verify(directory / name, files[name], digest)
    held = {name: found for name, found in files.items() if name not in _READ_LATER}
    return Bundle(directory, manifest, held, _sha256(content))


def _read(directory: Path, name: str) -> bytes:
    """Read a regular file that really lies in the directory."""
    path = directory / name
    try:
        inside = path.resolve().is_relative_to(directory.resolve())
    except RuntimeError as error:
        raise IntegrityError(f"{path}: it is a link that leads to itself") from error
    if not inside:
        raise IntegrityError(f"{path}: it leads outside the bundle's directory")
    if path.exists() and not path.is_file():  # reading a pipe would wait for ever
        raise IntegrityError(f"{path}: it is not a regular file")
    try:
        return path.read_bytes()
    except OSError as error:
        raise IntegrityError(f"{path}: it is missing or cannot be read ({error.strerror})") from error


def _verify(path: Path, content: bytes, digest: str) -> None:
    found = _sha256(content)
    if found != digest:
        raise IntegrityError(
            f"{path}: it was changed (SHA-256 {found[:12]}…, the manifest says {digest[:12]}…)"
        )


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _is_version(name: str) -> bool:
    return name.isascii() and name.isdigit() and name[0] != "0"
