"""The keys that prediction ids are signed with: of a file, or drawn at random for one start."""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import stat
from pathlib import Path
from typing import NamedTuple

logger = logging.getLogger(__name__)

_SHORTEST_BYTES = 32
_MOST_KEYS = 2
RANDOM_WARNING = (
    "prediction ids are signed with a random key: feedback ends with this start, and no replica takes it; "
    "OCTET_FEEDBACK_KEY_FILE names a key that lasts"
)


class Keys(NamedTuple):
    """What signs, and what is taken.

    Attributes:
        current: signs; 32 bytes.
        all: the current one, and the one before it where there is one.
    """

    current: bytes
    all: tuple[bytes, ...]


def make_keys(*secrets_of_file: bytes) -> Keys:
    """Return the keys that are made of one or two secrets, the current one first."""
    keys = tuple(
        hashlib.blake2b(each, digest_size=32, person=b"octet feedback").digest() for each in secrets_of_file
    )
    return Keys(keys[0], keys)


def new_secret() -> str:
    """Return a secret that nobody can guess, as a line of a key file."""
    return secrets.token_urlsafe(_SHORTEST_BYTES)


def write_random_key(path: Path) -> None:
    """Write a key file with a random key that no other user may read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(new_secret() + "\n")


def read_keys(path: Path) -> Keys:
    """Read a file of one or two lines: the current key, and the one before it, whose ids are still taken.

    Raises:
        OSError: it cannot be read, has another number of lines, or a key is so short that it may be guessed.
    """
    try:
        lines = path.read_bytes().split(b"\n")
        mode = path.stat().st_mode
    except OSError as error:
        raise OSError(f"the feedback key file {path} cannot be read: {error.strerror}") from error
    found = [line.strip() for line in lines if line.strip()]
    if not 1 <= len(found) <= _MOST_KEYS:
        raise OSError(
            f"the feedback key file {path} must hold one or two lines, a key each, not {len(found)}"
        )
    if any(len(each) < _SHORTEST_BYTES for each in found):
        raise OSError(f"a key in the feedback key file {path} has fewer than {_SHORTEST_BYTES} characters")
    if mode & stat.S_IRWXO:  # a group may read a secret that is mounted into a container
        logger.warning("every user may use the feedback key file %s; chmod 600 keeps them out", path)
    return make_keys(*found)


def choose_keys(path: Path | None) -> Keys:
    """Return the keys of a file, or random ones where there is none, with a warning.

    Raises:
        OSError: as `read_keys`.
    """
    if path is not None:
        return read_keys(path)
    logger.warning(RANDOM_WARNING)
    return make_keys(new_secret().encode())
