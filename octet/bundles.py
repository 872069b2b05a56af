"""Which bundle of a repository a person means."""

from __future__ import annotations

from pathlib import Path

from bundle.repository import list_bundles
from bundle.serving import STABLE, read_serving
from octet.errors import CommandError


def find_bundle(repository: Path, model: str) -> Path:
    """Return the directory of NAME (its alias "stable", or the latest), NAME/VERSION or NAME/ALIAS.

    Raises:
        CommandError: there is no such bundle.
        BundleError: the repository is not there, or its aliases cannot be read.
    """
    name, _, wanted = model.partition("/")
    published = list_bundles(repository)
    if name not in published:
        raise CommandError(
            f"there is no model {name!r} in {repository}; there are {', '.join(published) or 'none'}"
        )
    versions = published[name]
    aliases = read_serving(repository, name).aliases
    if not wanted:
        version = aliases.get(STABLE, versions[-1])
    elif wanted in aliases:
        version = aliases[wanted]
    else:
        version = int(wanted) if wanted.isdecimal() else 0
    if version not in versions:
        known = ", ".join([*map(str, versions), *sorted(aliases)])
        raise CommandError(f"there is no version {wanted or version} of {name}; there are {known}")
    return repository / name / str(version)
