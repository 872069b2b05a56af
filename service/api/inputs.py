"""From a body and its media type to validated rows."""

from __future__ import annotations

import time
from functools import lru_cache

from bundle.decoding import Limits
from bundle.errors import InputError
from bundle.manifest import Manifest
from bundle.rows import Row, check_alike, row_from_media, rows_from_bytes
from service.api.calls import Sent
from service.api.forms import MULTIPART, read_files
from service.api.instances import Asked, read_json
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
    media = MEDIA_TYPES[manifest.decoding.kind]
    accepted = (JSON, *media, *((MULTIPART,) if media else ()), OCTETS)
    if media_type not in accepted:
        named = f"the content type {media_type!r}" if media_type else "a body without a content type"
        raise UnsupportedMediaError(f"{manifest.name} does not take {named}; it takes {', '.join(accepted)}")


def read_asked(manifest: Manifest, sent: Sent, limits: Limits, *, invert: bool = False) -> Asked:
    """Parse, decode and validate a body of an accepted media type.

    Args:
        invert: swap dark and light of images.

    Raises:
        InputError: anything in it is not usable.
        DeadlineError: it took longer than the caller waits.
    """
    media_type = sent.media_type
    if media_type == JSON:
        return read_json(sent.body, manifest, limits, invert=invert, expires_s=sent.expires_s)
    if media_type == OCTETS:
        if invert:
            raise InputError("invert is for images that are sent as media, not for tensors")
        if not manifest.batched:
            raise InputError(
                f"{manifest.name} takes no rows as bytes, because its tensors have no batch dimension: "
                'send them as "inputs" in JSON, or through /v2'
            )
        return Asked(rows_from_bytes(manifest, sent.body, sent.shape, limits))
    if media_type == MULTIPART:
        return Asked(_read_form(manifest, sent, limits, invert=invert))
    return Asked([row_from_media(manifest, sent.body, limits, invert=invert)])


def is_quick(sent: Sent) -> bool:
    """Whether a body is so small that reading its rows may keep the event loop busy.

    Images decode to far more than their size, and only the header of a PNG tells by how much without a
    decoder. In JSON they are objects with the member "b64", which cannot hide where nothing is escaped.
    """
    body, media_type = sent.body, sent.media_type
    if len(body) > INLINE_BYTES:
        return False
    if media_type == OCTETS:
        return True
    if media_type == JSON:
        return body.count(b'"') == 2 or (b"b64" not in body and b"\\" not in body)
    if media_type == "image/png":
        return 0 < _png_values(body) <= _INLINE_VALUES
    return media_type in MEDIA_TYPES["audio"] and len(body) <= _INLINE_SOUND_BYTES


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


def _read_form(manifest: Manifest, sent: Sent, limits: Limits, *, invert: bool) -> list[Row]:
    rows = []
    for i, media in enumerate(read_files(sent.body, sent.boundary, limits.max_rows)):
        if time.monotonic() > sent.expires_s:
            raise DeadlineError("the files could not be decoded in time")
        try:
            rows.append(row_from_media(manifest, media, limits, invert=invert))
        except InputError as error:
            raise InputError(f"file {i}: {error}") from error
    check_alike(manifest, rows)
    return rows


def _png_values(body: bytes) -> int:
    """How many values a PNG decodes to, by the width and height in its header; 0 where that does not tell.

    Of several headers the last counts, and compressed texts and profiles are unpacked beside the image.
    """
    if len(body) < 24 or not body.startswith(_PNG_START):
        return 0
    if body.count(b"IHDR") > 1 or b"zTXt" in body or b"iTXt" in body or b"iCCP" in body:
        return 0
    return 3 * int.from_bytes(body[16:20]) * int.from_bytes(body[20:24])
