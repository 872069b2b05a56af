"""From a body and its media type to validated rows."""

from __future__ import annotations

import base64
import binascii
import time
from functools import lru_cache
from typing import NamedTuple

import orjson

from bundle.decoding import Limits
from bundle.errors import InputError
from bundle.manifest import Manifest
from bundle.rows import Row, check_count, row_from_media, row_from_values, rows_from_bytes
from service.errors import DeadlineError, UnsupportedMediaError

JSON = "application/json"
OCTETS = "application/octet-stream"
# Larger bodies are parsed by a thread, so that the event loop stays free.
INLINE_BYTES = 64 * 1024
# Media that decode to more are left to a thread: a PNG of 256 x 256 colour pixels, a second of sound.
_INLINE_VALUES = 3 * 256 * 256
_INLINE_SOUND_BYTES = 16 * 1024
_PNG_START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
# The media types of each kind of decoding in a manifest.
MEDIA_TYPES: dict[str, tuple[str, ...]] = {
    "image": ("image/png", "image/jpeg"),
    "audio": ("audio/wav", "audio/x-wav", "audio/wave", "audio/vnd.wave"),
    "text": ("text/plain",),
    "tensor": (),
}


class Inputs(NamedTuple):
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


def media_type_of(content_type: str) -> str:
    """Return the media type in a Content-Type header, without its parameters."""
    return content_type.split(";")[0].strip().lower()


def check_media_type(manifest: Manifest, media_type: str) -> None:
    """Refuse what this model cannot take before its body is read.

    Raises:
        UnsupportedMediaError: the message lists what it takes.
    """
    if media_type in (JSON, OCTETS):
        return
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


def is_quick(inputs: Inputs) -> bool:
    """Whether a body is so small that reading its rows may keep the event loop busy.

    Images decode to far more than their size, and only the header of a PNG tells by how much without a
    decoder. In JSON they are text, so there are more quotes than the two around "instances".
    """
    if len(inputs.body) > INLINE_BYTES:
        return False
    if inputs.media_type == "image/png":
        return 0 < _png_values(inputs.body) <= _INLINE_VALUES
    if inputs.media_type in MEDIA_TYPES["audio"]:
        return len(inputs.body) <= _INLINE_SOUND_BYTES
    return inputs.media_type == OCTETS or (inputs.media_type == JSON and inputs.body.count(b'"') == 2)


@lru_cache(maxsize=1024)
def parse_shape(text: str | None) -> tuple[int, ...] | None:
    """Parse the X-Tensor-Shape header, e.g. "2,28,28".

    Raises:
        InputError: it is no list of positive integers.
    """
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if (
        len(text) > 200
        or len(parts) > 8
        or not all(part.isascii() and part.isdigit() and 0 < len(part) < 10 for part in parts)
    ):
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
    only_numbers = _holds_only_numbers(inputs.body)
    rows = []
    for i, instance in enumerate(instances):
        if time.monotonic() > inputs.expires_s:
            raise DeadlineError("the instances could not be decoded in time")
        try:
            rows.append(_read_instance(manifest, instance, inputs, limits, only_numbers))
        except InputError as error:
            raise InputError(f"instance {i}: {error}") from error
    return rows


def _holds_only_numbers(body: bytes) -> bool:
    """Whether nothing but numbers and lists stands in {"instances": …}, by the letters of valid JSON.

    The key has the only two quotes, and of true, false and null each has a letter that the key has not.
    """
    return body.count(b'"') == 2 and b"u" not in body and b"l" not in body


def _png_values(body: bytes) -> int:
    """How many values a PNG decodes to, by the width and height in its header; 0 where that does not tell.

    Of several headers the last counts, and compressed texts and profiles are unpacked beside the image.
    """
    if len(body) < 24 or not body.startswith(_PNG_START):
        return 0
    if body.count(b"IHDR") > 1 or b"zTXt" in body or b"iTXt" in body or b"iCCP" in body:
        return 0
    return 3 * int.from_bytes(body[16:20]) * int.from_bytes(body[20:24])


def _read_instance(
    manifest: Manifest, instance: object, inputs: Inputs, limits: Limits, only_numbers: bool
) -> Row:
    if not isinstance(instance, dict):
        _refuse_invert(inputs)
        return row_from_values(manifest, instance, limits, only_numbers=only_numbers)
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
