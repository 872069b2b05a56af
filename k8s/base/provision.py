"""Verify a model repository against the trusted digests, and copy what is whole to where it is served from.

    python provision.py TRUSTED SOURCE [TARGET]

Every bundle of SOURCE must be listed in TRUSTED, and every file of it must have the digest that its manifest
names. What is copied is the bytes that were verified. Without TARGET nothing is copied. It runs as an init
container of the image of the service, so it uses its package `bundle` and nothing else.
"""

from __future__ import annotations

import sys
from pathlib import Path

from bundle.errors import BundleError
from bundle.manifest import MANIFEST_FILE
from bundle.repository import Bundle, list_bundles, read_bundle
from bundle.serving import SERVING_FILE
from bundle.trusted import read_trusted


def main(arguments: list[str]) -> int:
    """Return the exit code; what is wrong is one line."""
    if len(arguments) not in (2, 3):
        print("usage: provision.py TRUSTED SOURCE [TARGET]", file=sys.stderr)
        return 2
    trusted, source, *target = map(Path, arguments)
    try:
        provision(trusted, source, target[0] if target else None)
    except (BundleError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def provision(trusted: Path, source: Path, target: Path | None) -> None:
    """Verify every bundle of `source`, then copy all of them to `target`, if any.

    Raises:
        BundleError: there is none, one is not listed, or a file was changed.
        OSError: the target cannot be written to.
    """
    listed = read_trusted(trusted)
    published = list_bundles(source)
    if not published:
        raise BundleError(f"{source} holds no bundle")
    bundles = [
        read_bundle(source / name / str(version))
        for name, versions in published.items()
        for version in versions
    ]
    for bundle in bundles:
        listed.check(bundle)
        print(f"{bundle.manifest_sha256}  {bundle.manifest.name}/{bundle.manifest.version}")
    if target is not None:
        for bundle in bundles:
            copy(bundle, target)
        for name in published:
            if (source / name / SERVING_FILE).is_file():
                (target / name / SERVING_FILE).write_bytes((source / name / SERVING_FILE).read_bytes())


def copy(bundle: Bundle, target: Path) -> None:
    """Write a bundle below `target`; its manifest last, so that a half-written one is none."""
    directory = target / bundle.manifest.name / str(bundle.manifest.version)
    directory.mkdir(parents=True, exist_ok=True)  # an init container may run again
    for name in bundle.manifest.files:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(bundle.read(name))
    (directory / MANIFEST_FILE).write_bytes((bundle.directory / MANIFEST_FILE).read_bytes())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
