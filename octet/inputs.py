"""Files as a person has them, and the rows or the request that become of them."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bundle.archive import load_arrays
from bundle.datatypes import DTYPES, Array, array_from_values
from bundle.decoding import Limits
from bundle.errors import InputError
from bundle.manifest import Manifest, TensorSpec
from bundle.rows import Row, row_from_media, row_from_values, rows_from_tensors
from octet.errors import CommandError

LIMITS = Limits()
_MEDIA_TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".wav": "audio/wav",
    ".txt": "text/plain",
}


@dataclass(frozen=True)
class Request:
    """What a file becomes when a server is asked."""

    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


def read_rows(path: Path, manifest: Manifest, *, invert: bool = False) -> list[Row]:
    """Turn a file into rows of a model.

    `.json` holds one instance, or an object with "instances", or one with "inputs" by name; `.npy` an array
    of the only input, with or without a dimension of rows; `.npz` arrays by name; any other file is media.

    Raises:
        CommandError: it cannot be read.
        InputError: it does not fit the model.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}") from error
    try:
        match path.suffix.lower():
            case ".json":
                return _rows_from_json(content, manifest)
            case ".npy":
                return _rows_from_array(_array(content), manifest)
            case ".npz":
                return rows_from_tensors(manifest, _fitted(load_arrays(content), manifest), LIMITS)
            case _:
                return [row_from_media(manifest, content, LIMITS, invert=invert)]
    except (InputError, ValueError) as error:
        raise InputError(f"{path}: {error}") from error


def read_request(path: Path) -> Request:
    """Turn a file into a body of `:predict`.

    Raises:
        CommandError: it cannot be read, or is nothing that `:predict` takes.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}") from error
    suffix = path.suffix.lower()
    if suffix in _MEDIA_TYPES:
        return Request(content, {"content-type": _MEDIA_TYPES[suffix]})
    try:
        match suffix:
            case ".json":
                value = json.loads(content)
                known = isinstance(value, dict) and {"instances", "inputs"} & set(value)
                value = value if known else {"instances": [value]}
            case ".npy":
                value = {"instances": [_array(content).tolist()]}
            case ".npz":
                value = {"inputs": {name: array.tolist() for name, array in load_arrays(content).items()}}
            case _:
                raise CommandError(f"{path} is of no type that is known; known are {', '.join(_known())}")
    except ValueError as error:
        raise CommandError(f"{path}: {error}") from error
    return Request(json.dumps(value).encode(), {"content-type": "application/json"})


def _known() -> list[str]:
    return [*_MEDIA_TYPES, ".json", ".npy", ".npz"]


def _rows_from_json(content: bytes, manifest: Manifest) -> list[Row]:
    value = json.loads(content)
    if isinstance(value, dict) and isinstance(value.get("inputs"), dict):
        specs = {spec.name: spec for spec in manifest.inputs}
        arrays = {
            name: _array_from_json(specs.get(name), name, each) for name, each in value["inputs"].items()
        }
        return rows_from_tensors(manifest, arrays, LIMITS)
    if isinstance(value, dict) and isinstance(value.get("instances"), list):
        return [row_from_values(manifest, instance, LIMITS) for instance in value["instances"]]
    return [row_from_values(manifest, value, LIMITS)]


def _rows_from_array(array: Array, manifest: Manifest) -> list[Row]:
    if len(manifest.data_inputs) != 1:
        names = ", ".join(spec.name for spec in manifest.data_inputs)
        raise InputError(f"this model has several inputs ({names}); give them by name in a .npz file")
    (spec,) = manifest.data_inputs
    whole = array[np.newaxis] if manifest.batched and array.ndim == len(spec.row_shape) else array
    return rows_from_tensors(manifest, _fitted({spec.name: whole}, manifest), LIMITS)


def _fitted(arrays: dict[str, Array], manifest: Manifest) -> dict[str, Array]:
    """Bring arrays into the types of the inputs where no value is changed but by rounding."""
    specs = {spec.name: spec for spec in manifest.inputs}
    return {name: _fit(specs[name], array) if name in specs else array for name, array in arrays.items()}


def _fit(spec: TensorSpec, array: Array) -> Array:
    dtype = DTYPES[spec.datatype]
    with np.errstate(over="ignore"):  # it shows as infinity
        cast = array.astype(dtype)
    if array.dtype != dtype and dtype.kind != "f" and not np.array_equal(cast, array):
        raise InputError(f"{spec.name}: values of {array.dtype} are no {spec.datatype}")
    return cast


def _array_from_json(spec: TensorSpec | None, name: str, values: Any) -> Array:
    if spec is None:  # whom it belongs to is said better where all names are known
        return np.zeros(0, np.float32)
    try:
        shape = np.shape(np.array(values, object if spec.datatype == "BYTES" else None))
    except ValueError as error:
        raise InputError(f"{name}: the nested lists have no regular shape") from error
    return array_from_values(name, spec.datatype, shape, values)


def _array(content: bytes) -> Array:
    """Read an `.npy` file, without pickle."""
    array = np.load(io.BytesIO(content), allow_pickle=False)
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biufU":
        raise ValueError("it is no array of booleans, numbers or texts")
    return array.astype(object) if array.dtype.kind == "U" else array
