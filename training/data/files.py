"""Get the published files of a data set into the data directory, verified.

A file counts as there only if its SHA-256 is the published one. Downloads go to a temporary name and
are moved into place after verification, so that an interrupted download leaves nothing that could
be taken for data.
"""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from training.errors import DataError

_CHUNK_BYTES = 1 << 20
_TIMEOUT_S = 30


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(checksums: Mapping[str, str]) -> str:
    """Return one digest for a whole data set: that of its `<sha256>  <name>` lines in order of name."""
    lines = "".join(f"{checksums[name]}  {name}\n" for name in sorted(checksums))
    return hashlib.sha256(lines.encode()).hexdigest()


def ensure_files(folder: Path, checksums: Mapping[str, str], base_url: str) -> None:
    """Make sure that every file lies verified in a folder; download those that do not.

    Args:
        folder: where the data set lies, e.g. `<data dir>/mnist`.
        checksums: file name -> SHA-256.
        base_url: address that a file name is appended to.

    Raises:
        DataError: a file is not there and cannot be fetched, or what came is not the published file.
    """
    for name in missing_files(folder, checksums):
        url = f"{base_url}/{name}"
        with _temporary_folder(folder) as temporary:
            part = temporary / "part"
            _download(url, part, wanted=folder / name)
            _verify(part, checksums[name], name=name, url=url)
            part.replace(folder / name)


def ensure_archive(folder: Path, checksums: Mapping[str, str], url: str) -> None:
    """Make sure that every file lies verified in a folder; if not, take them from one tar archive.

    Args:
        folder: where the data set lies, e.g. `<data dir>/fsdd`.
        checksums: path below the folder -> SHA-256. A member of the archive is taken by this path,
            whatever its leading folder; other members are left alone.
        url: address of the archive.

    Raises:
        DataError: as `ensure_files`.
    """
    missing = missing_files(folder, checksums)
    if not missing:
        return
    with _temporary_folder(folder) as temporary:
        archive = temporary / "archive"
        _download(url, archive, wanted=folder / missing[0])
        wanted = set(missing)
        try:
            with tarfile.open(archive) as tar:
                for member in tar:
                    name = str(PurePosixPath(*PurePosixPath(member.name).parts[1:]))
                    # Links are never followed, not even to other members.
                    source = tar.extractfile(member) if name in wanted and member.isfile() else None
                    if source is None:
                        continue
                    part = temporary / "part"
                    with part.open("wb") as sink:
                        shutil.copyfileobj(source, sink)
                    _verify(part, checksums[name], name=name, url=url)
                    (folder / name).parent.mkdir(parents=True, exist_ok=True)
                    part.replace(folder / name)
                    wanted.discard(name)
        except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
            raise DataError(f"the archive {url} cannot be read: {error}") from error
    if wanted:
        raise DataError(f"the archive {url} does not hold {min(wanted)} ({len(wanted)} files are missing)")


def missing_files(folder: Path, checksums: Mapping[str, str]) -> list[str]:
    """Return, in order, the names whose file is not there or has another checksum."""
    return [
        name
        for name in sorted(checksums)
        if not (folder / name).is_file() or sha256_of(folder / name) != checksums[name]
    ]


@contextmanager
def _temporary_folder(folder: Path) -> Iterator[Path]:
    """A hidden folder beside the data, which is gone afterwards, whatever happened."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = tempfile.TemporaryDirectory(dir=folder, prefix=".download-")
    except OSError as error:
        raise DataError(f"the data directory {folder} cannot be written to: {error}") from error
    with temporary as name:
        yield Path(name)


def _download(url: str, target: Path, *, wanted: Path) -> None:
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as response, target.open("wb") as file:
            size = int(response.headers.get("Content-Length") or 0) or None
            with tqdm(total=size, unit="B", unit_scale=True, desc=url.rsplit("/", 1)[-1]) as bar:
                while chunk := response.read(_CHUNK_BYTES):
                    file.write(chunk)
                    bar.update(len(chunk))
    except (urllib.error.URLError, HTTPException, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        state = "is not the published file" if wanted.is_file() else "is not there"
        raise DataError(
            f"{wanted} {state} (looked for in the data directory; --data-dir or OCTET_DATA_DIR "
            f"names another) "
            f"and could not be downloaded from {url}: {reason}"
        ) from error


def _verify(path: Path, expected: str, *, name: str, url: str) -> None:
    found = sha256_of(path)
    if found != expected:
        raise DataError(
            f"{name} from {url} has the SHA-256 {found[:12]}…, not the published {expected[:12]}…"
        )
