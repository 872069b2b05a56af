"""Damaged files for the fuzz tests: a valid file in which a few bytes were changed, lost or added."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

from hypothesis import strategies as st

_TELLING_BYTES = st.one_of(st.sampled_from([0, 1, 2, 127, 128, 255]), st.integers(0, 255))


@st.composite
def damaged(draw: st.DrawFn, originals: Sequence[bytes], header_bytes: int = 200) -> bytes:
    """Draw a damaged copy of one of the originals; most of the damage is in the first `header_bytes`."""
    body = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 4))):
        end = min(len(body), header_bytes) if draw(st.booleans()) else len(body)
        position = draw(st.integers(0, max(0, end - 1)))
        match draw(st.sampled_from(["set", "set", "set", "remove", "insert", "cut"])):
            case "set":
                body[position : position + 1] = bytes([draw(_TELLING_BYTES)])
            case "remove":
                del body[position : position + draw(st.integers(1, 16))]
            case "insert":
                body[position:position] = draw(st.binary(min_size=1, max_size=4))
            case "cut":
                del body[position:]
    return repair_checksums(bytes(body)) if draw(st.booleans()) else bytes(body)


def repair_checksums(png: bytes) -> bytes:
    """Give every chunk of a PNG its right CRC, so that damage reaches what lies behind the check."""
    if not png.startswith(b"\x89PNG\r\n\x1a\n"):
        return png
    repaired, position = png[:8], 8
    while position + 12 <= len(png):
        (size,) = struct.unpack_from(">I", png, position)
        if position + 12 + size > len(png):
            break
        content = png[position + 4 : position + 8 + size]
        repaired += png[position : position + 4] + content + struct.pack(">I", zlib.crc32(content))
        position += 12 + size
    return repaired + png[position:]
