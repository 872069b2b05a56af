"""Which bundles may be served: the digests of manifests that somebody vouches for.

A digest inside a bundle proves that its files belong together, not where they come from. A list of digests
that is kept elsewhere does: a manifest names the SHA-256 of every other file, so its own pins them all.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from bundle.errors import TrustError
from bundle.manifest import MANIFEST_FILE
from bundle.repository import Bundle, list_bundles

# As sha256sum prints it, also of `*/*/manifest.json`.
_LINE = re.compile(rf"([0-9a-f]{{64}}) [ *](\S+?/[1-9][0-9]*)(?:/{re.escape(MANIFEST_FILE)})?")


@dataclass(frozen=True)
class TrustedDigests:
    """A list of bundles that may be served.

    Attributes:
        path: where it was read from.
        digests: `<name>/<version>` -> SHA-256 of its manifest.
    """

    path: Path
    digests: dict[str, str]

    def check(self, bundle: Bundle) -> None:
        """Check that a bundle is on the list.

        Raises:
            TrustError: it is not, or with another digest.
        """
        name = f"{bundle.manifest.name}/{bundle.manifest.version}"
        expected = self.digests.get(name)
        if expected is None:
            raise TrustError(f"{bundle.directory}: {self.path} does not list {name}")
        if expected != bundle.manifest_sha256:
            raise TrustError(
                f"{bundle.directory}: its {MANIFEST_FILE} is not the trusted one "
                f"(SHA-256 {bundle.manifest_sha256[:12]}…, {self.path} lists {expected[:12]}…)"
            )


def read_trusted(path: Path) -> TrustedDigests:
    """Read a list: lines `<sha256 of manifest.json>  <name>/<version>`; `#` begins a comment.

    Raises:
        TrustError: it cannot be read, or a line cannot be understood or contradicts another.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise TrustError(f"{path}: it cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise TrustError(f"{path}: it is not UTF-8") from error
    digests: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        content = line.partition("#")[0].strip()
        if not content:
            continue
        match = _LINE.fullmatch(content)
        if match is None:
            raise TrustError(f"{path}: line {number} is not '<sha256>  <name>/<version>'")
        digest, name = match.groups()
        if digests.setdefault(name, digest) != digest:
            raise TrustError(f"{path}: line {number} gives {name} another digest than a line before")
    return TrustedDigests(path, digests)


def list_digests(repository: Path) -> dict[str, str]:
    """Return `<name>/<version>` -> SHA-256 of its manifest, of every bundle of a model repository.

    Raises:
        BundleError: the repository is not a directory.
        TrustError: a manifest cannot be read.
    """
    digests = {}
    for name, versions in list_bundles(repository).items():
        for version in versions:
            path = repository / name / str(version) / MANIFEST_FILE
            try:
                digests[f"{name}/{version}"] = hashlib.sha256(path.read_bytes()).hexdigest()
            except OSError as error:
                raise TrustError(f"{path}: it cannot be read ({error.strerror})") from error
    return digests
