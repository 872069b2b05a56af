"""Compressed bodies, in both directions."""

from __future__ import annotations

import gzip
import zlib
from typing import Literal

from bundle.errors import InputError
from service.errors import BodyTooLargeError, UnsupportedMediaError

Coding = Literal["gzip", "deflate"]

# For zlib: 15 bits of window, and its own or gzip's header, or none.
_ANY_HEADER = 15 + 32
_NO_HEADER = -15
# Answers are small and networks fast: more effort costs more than it saves.
_LEVEL = 1


def coding_of(content_encoding: str) -> Coding | None:
    """Return how a body is compressed, by its Content-Encoding header.

    Raises:
        UnsupportedMediaError: in a way that is not supported.
    """
    match content_encoding.strip().lower():
        case "" | "identity":
            return None
        case "gzip" | "x-gzip":
            return "gzip"
        case "deflate":
            return "deflate"
    raise UnsupportedMediaError(
        f"a body with the content encoding {content_encoding[:80]!r} is not supported"
    )


def wanted_coding(accept_encoding: str) -> Coding | None:
    """Return how to compress an answer: as the caller says who accepts that one coding and names no other.

    Most clients name all that they know with every request, whether it would help them or not.
    """
    match accept_encoding.strip().lower():
        case "gzip":
            return "gzip"
        case "deflate":
            return "deflate"
    return None


def decompress(body: bytes, max_bytes: int) -> bytes:
    """Return the content of a body that is compressed either way; what is called deflate may lack its header.

    Raises:
        BodyTooLargeError: it is larger than `max_bytes`; no more of it is unpacked.
        InputError: it is damaged.
    """
    unpacker = zlib.decompressobj(_ANY_HEADER if _has_header(body) else _NO_HEADER)
    try:
        content = unpacker.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise InputError(f"the body cannot be decompressed: {error}") from error
    if len(content) > max_bytes:
        raise BodyTooLargeError(f"the body is larger than the allowed {max_bytes} bytes")
    if not unpacker.eof or unpacker.unused_data:
        raise InputError("the compressed body is cut off or has more behind its end")
    return content


def compress(body: bytes, coding: Coding) -> bytes:
    """Return a body compressed."""
    return gzip.compress(body, _LEVEL, mtime=0) if coding == "gzip" else zlib.compress(body, _LEVEL)


def _has_header(body: bytes) -> bool:
    """Whether a body begins as gzip does (RFC 1952) or zlib (RFC 1950)."""
    start = int.from_bytes(body[:2])
    return start == 0x1F8B or (start >> 8 & 15 == 8 and start % 31 == 0)
