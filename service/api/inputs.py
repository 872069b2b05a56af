"""From a body and its media type to validated rows."""

from __future__ import annotations

import base64
import binascii
import time
from dataclasses import dataclass

import orjson

from bundle.decoding import Limits
from bundle.errors import InputError
from bundle.manifest import Manifest
from bundle.rows import Row, check_count, row_from_media, row_from_values, rows_from_bytes
from service.errors import DeadlineError, UnsupportedMediaError

JSON = "application/json"
OCTETS = "application/octet-stream"
# The media types of each kind of decoding in a manifest.
MEDIA_TYPES: dict[str, tuple[str, ...]] = {
    "image": ("image/png", "image/jpeg"),
    "audio": ("audio/wav", "audio/x-wav", "audio/wave", "audio/vnd.wave"),
    "text": ("text/plain",),
    "tensor": (),
}


@dataclass(frozen=True)
class Inputs:
    """A request's body and all that says how to read it.

    Attributes:
        media_type: lower case, without parameters; empty where the request names none.
        shape: of an octet-stream tensor, with the batch dimension, or None.
        invert: swap dark and light of images.
        expires_s: `time.monotonic()` after which nobody waits for the result.
    """

    body: bytes
    media_type: str
    shape: tuple[int, ...] | None
    invert: bool
    expires_s: float


def check_media_type(manifest: Manifest, media_type: str) -> None:
    """Refuse what this model cannot take before its body is read.

    Raises:
        UnsupportedMediaError: the message lists what it takes.
    """
    accepted = (JSON, *MEDIA_TYPES[manifest.decoding.kind], OCTETS)
    if media_type not in accepted:
        named = f"the content type {media_type!r}" if media_type else "a body without a content type"
        raise UnsupportedMediaError(f"{manifest.name} does not take {named}; it takes {', '.join(accepted)}")


def read_rows(manifest: Manifest, inputs: Inputs, limits: Limits) -> list[Row]:
    """Parse, decode and validate a body of an accepted media type.

    Raises:
        InputError: anything in it is not usable.
        DeadlineError: it took longer than the caller waits.
    """
    if inputs.media_type == OCTETS:
        _refuse_invert(inputs)
        return rows_from_bytes(manifest, inputs.body, inputs.shape, limits)
    if inputs.media_type == JSON:
        return _read_json(manifest, inputs, limits)
    return [row_from_media(manifest, inputs.body, limits, invert=inputs.invert)]


def parse_shape(text: str | None) -> tuple[int, ...] | None:
    """Parse the X-Tensor-Shape header, e.g. "2,28,28".

    Raises:
        InputError: it is no list of positive integers.
    """
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if len(parts) > 8 or not all(part.isascii() and part.isdigit() and 0 < len(part) < 10 for part in parts):
        raise InputError(f"X-Tensor-Shape must be positive integers separated by commas, not {text[:80]!r}")
    return tuple(int(part) for part in parts)


def _read_json(manifest: Manifest, inputs: Inputs, limits: Limits) -> list[Row]:
    try:
        document = orjson.loads(inputs.body)
    except orjson.JSONDecodeError as error:
        raise InputError(f"the body is not valid JSON: {error}") from error
    if not isinstance(document, dict) or list(document) != ["instances"]:
        raise InputError('the body must be a JSON object with the one member "instances"')
    instances = document["instances"]
    if not isinstance(instances, list) or not instances:
        raise InputError('"instances" must be a list of at least one instance')
    check_count(len(instances), limits)
    rows = []
    for i, instance in enumerate(instances):
        if time.monotonic() > inputs.expires_s:
            raise DeadlineError("the instances could not be decoded in time")
        try:
            rows.append(_read_instance(manifest, instance, inputs, limits))
        except InputError as error:
            raise InputError(f"instance {i}: {error}") from error
    return rows


def _read_instance(manifest: Manifest, instance: object, inputs: Inputs, limits: Limits) -> Row:
    if not isinstance(instance, dict):
        _refuse_invert(inputs)
        return row_from_values(manifest, instance, limits)
    if list(instance) != ["b64"] or not isinstance(instance["b64"], str):
        raise InputError('an instance must be nested numbers or {"b64": "…"}')
    try:
        media = base64.b64decode(instance["b64"], validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(f"b64 is not valid base64: {error}") from error
    return row_from_media(manifest, media, limits, invert=inputs.invert)


def _refuse_invert(inputs: Inputs) -> None:
    if inputs.invert:
        raise InputError("invert is for images that are sent as media, not for tensors")
