"""From the JSON of a v1 call to validated rows: from `instances`, or from `inputs`, which are whole tensors.

Both are TensorFlow Serving's forms. An object with the one member "b64" stands for bytes: a media file where
the model decodes one, and a text, as UTF-8, for an input of BYTES.
"""

from __future__ import annotations

import base64
import binascii
import time
from typing import Any, NamedTuple

import orjson

from bundle.decoding import Limits
from bundle.errors import InputError
from bundle.manifest import Manifest, TensorSpec
from bundle.rows import (
    Row,
    check_alike,
    check_count,
    row_from_media,
    row_from_named_values,
    row_from_values,
    rows_from_tensors,
    tensor_from_values,
)
from service.errors import DeadlineError

# What an answer consists of: objects with labels for a classification, or the values of tensors.
DEFAULT_SIGNATURE, RAW_SIGNATURE = "serving_default", "raw"
SIGNATURES = (DEFAULT_SIGNATURE, RAW_SIGNATURE)
_FORMS = ({"instances"}, {"instances", "signature_name"}, {"inputs"}, {"inputs", "signature_name"})


class Asked(NamedTuple):
    """What a v1 call asks.

    Attributes:
        signature: one of `SIGNATURES`.
        columnar: the rows came as whole tensors, and so should what is raw in the answer.
    """

    rows: list[Row]
    signature: str = DEFAULT_SIGNATURE
    columnar: bool = False


class Reading(NamedTuple):
    """All that the reading of values depends on.

    Attributes:
        invert: swap dark and light of images.
        expires_s: `time.monotonic()` after which nobody waits for the result.
        only_numbers: nothing but numbers and lists stands in the values.
    """

    manifest: Manifest
    limits: Limits
    invert: bool
    expires_s: float
    only_numbers: bool


def read_json(body: bytes, manifest: Manifest, limits: Limits, *, invert: bool, expires_s: float) -> Asked:
    """Parse, decode and validate a JSON body.

    Raises:
        InputError: anything in it is not usable.
        DeadlineError: it took longer than the caller waits.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InputError(f"the body is not valid JSON: {error}") from error
    if not isinstance(document, dict) or document.keys() not in _FORMS:
        raise InputError(
            'the body must be a JSON object with the member "instances" or "inputs", and with no other '
            'but "signature_name"'
        )
    signature = _read_signature(document)
    reading = Reading(manifest, limits, invert, expires_s, _holds_only_numbers(body))
    if "inputs" in document:
        return Asked(_read_columns(reading, document["inputs"]), signature, columnar=True)
    if not manifest.batched:
        raise InputError(
            f'{manifest.name} takes no "instances", because its tensors have no batch dimension: '
            'send them as "inputs"'
        )
    return Asked(_read_rows(reading, document["instances"], "instance"), signature)


def _holds_only_numbers(body: bytes) -> bool:
    """Whether nothing but numbers and lists stands in {"instances": …}, by the letters of valid JSON.

    The key has the only two quotes, and of true, false and null each has a letter that the key has not.
    """
    return body.count(b'"') == 2 and b"u" not in body and b"l" not in body


def _read_signature(document: dict[str, Any]) -> str:
    signature = document.get("signature_name", DEFAULT_SIGNATURE)
    if signature not in SIGNATURES:
        named = f"{signature[:80]!r}" if isinstance(signature, str) else "that is no text"
        raise InputError(f"there is no signature {named}; there are {', '.join(SIGNATURES)}")
    return str(signature)


def _read_rows(reading: Reading, values: object, kind: str) -> list[Row]:
    """Read a list with one value for each row.

    Args:
        kind: what one of them is called.
    """
    if not isinstance(values, list) or not values:
        raise InputError(f'"{kind}s" must be a list of at least one {kind}')
    check_count(len(values), reading.limits)
    rows = []
    for i, value in enumerate(values):
        if time.monotonic() > reading.expires_s:
            raise DeadlineError(f"the {kind}s could not be decoded in time")
        try:
            rows.append(_read_row(reading, value))
        except InputError as error:
            raise InputError(f"{kind} {i}: {error}") from error
    check_alike(reading.manifest, rows)
    return rows


def _read_row(reading: Reading, value: object) -> Row:
    manifest, limits = reading.manifest, reading.limits
    takes_media = manifest.decoding.kind != "tensor"
    if isinstance(value, dict) and list(value) != ["b64"]:
        names = [tensor.name for tensor in manifest.data_inputs]
        if not (takes_media and list(value) == names):
            _refuse_invert(reading)
            return row_from_named_values(manifest, _decode_texts(manifest, value), limits)
        value = value[names[0]]
    if takes_media and isinstance(value, dict):
        return row_from_media(manifest, _decode_b64(value), limits, invert=reading.invert)
    _refuse_invert(reading)
    if not reading.only_numbers and len(manifest.data_inputs) == 1:
        (tensor,) = manifest.data_inputs
        value = _decode_text(tensor, value, len(tensor.row_shape))
    return row_from_values(manifest, value, limits, only_numbers=reading.only_numbers)


def _read_columns(reading: Reading, inputs: object) -> list[Row]:
    """Read whole tensors: the one of a model with one input, or each by its name."""
    manifest = reading.manifest
    specs = {tensor.name: tensor for tensor in manifest.inputs}
    names = [tensor.name for tensor in manifest.data_inputs]
    if not isinstance(inputs, dict) or list(inputs) == ["b64"]:
        if len(names) != 1:
            raise InputError(f'"inputs" must be an object with a tensor for each of {", ".join(names)}')
        inputs = {names[0]: inputs}
    if manifest.batched and len(inputs) == 1 and list(inputs) == names:
        return _read_rows(reading, next(iter(inputs.values())), "input")
    _refuse_invert(reading)
    if not inputs.keys() <= specs.keys():
        unknown = min(inputs.keys() - specs.keys())
        raise InputError(f"there is no input {unknown[:80]!r}; there are {', '.join(specs)}")
    tensors = {
        name: tensor_from_values(specs[name], _decode_text(specs[name], value, len(specs[name].shape)))
        for name, value in inputs.items()
    }
    return rows_from_tensors(manifest, tensors, reading.limits)


def _decode_texts(manifest: Manifest, values: dict[str, object]) -> dict[str, object]:
    specs = {tensor.name: tensor for tensor in manifest.data_inputs}
    return {
        name: _decode_text(specs[name], value, len(specs[name].row_shape)) if name in specs else value
        for name, value in values.items()
    }


def _decode_text(tensor: TensorSpec, value: object, depth: int) -> object:
    """Put texts in the place of {"b64": "…"} in the values of an input of BYTES, down to a depth of lists."""
    if tensor.datatype != "BYTES":
        return value
    if isinstance(value, list) and depth > 0:
        return [_decode_text(tensor, each, depth - 1) for each in value]
    if not isinstance(value, dict):
        return value
    try:
        return _decode_b64(value).decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{tensor.name}: an element of BYTES is not UTF-8") from error


def _decode_b64(value: dict[str, object]) -> bytes:
    content = value.get("b64")
    if len(value) != 1 or not isinstance(content, str):
        raise InputError('an object in the place of values must be {"b64": "…"}')
    try:
        return base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(f"b64 is not valid base64: {error}") from error


def _refuse_invert(reading: Reading) -> None:
    if reading.invert:
        raise InputError("invert is for images that are sent as media, not for tensors")
