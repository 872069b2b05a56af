"""Arrays by name in one `.npz` file, without pickle: what is read from it can run no code.

Texts stand in the file in numpy's own fixed width, and in memory as objects, as `bundle.datatypes` has them.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from bundle.datatypes import Array

# What numpy and zipfile raise for damaged files (found by fuzzing, see the tests).
_DAMAGE = (
    EOFError, MemoryError, NotImplementedError, OSError, RuntimeError, TypeError, ValueError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def save_arrays(arrays: Mapping[str, Array]) -> bytes:
    """Return the content of an `.npz` file; the elements of object arrays must be str."""
    plain: dict[str, Any] = {
        name: array.astype(np.str_) if array.dtype == object else array for name, array in arrays.items()
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **plain)
    return buffer.getvalue()


def load_arrays(content: bytes) -> dict[str, Array]:
    """Read an `.npz` file: name -> array of booleans, numbers or texts.

    Raises:
        ValueError: it is no such file, or holds anything else; the message is one line.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            return {name: _plain(archive[name]) for name in archive.files}
    except _DAMAGE as error:
        raise ValueError(f"cannot be read: {' '.join(str(error).split())}") from error


def _plain(value: object) -> Array:
    """An archive may hold a file that is no array, which numpy gives as bytes."""
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biufU":
        raise ValueError("it holds something that is no array of booleans, numbers or texts")
    return value.astype(object) if value.dtype.kind == "U" else value
