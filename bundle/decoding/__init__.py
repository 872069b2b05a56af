"""Turn a media body into the array that a graph takes: the one decoder of training and serving.

Training reads its data sets through these functions and the service reads requests through them, so
a model is served exactly what it was trained on. Everything that depends on the *content* (scaling,
log-mel features, padding by length) lives in the graph instead.

Decoders are pure: bytes in, array out, `InputError` for anything that is not usable.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bundle.decoding.audio import decode_audio
from bundle.decoding.image import decode_image
from bundle.decoding.text import decode_text
from bundle.errors import InputError
from bundle.media import AudioDecoding, Decoding, ImageDecoding, TextDecoding

__all__ = ["Limits", "decode_audio", "decode_image", "decode_media", "decode_text"]


@dataclass(frozen=True)
class Limits:
    """How much a request may hold, whatever its compressed size.

    Attributes:
        max_rows: rows of one request.
        max_pixels: width times height of an image as sent.
        max_audio_s: seconds of a sound as sent.
    """

    max_rows: int = 1024
    max_pixels: int = 50_000_000
    max_audio_s: float = 30.0


def decode_media(
    body: bytes, decoding: Decoding, limits: Limits, *, invert: bool = False
) -> NDArray[np.uint8] | NDArray[np.float32] | NDArray[np.int64]:
    """Decode one media item as the manifest says.

    Args:
        body: the file as sent, e.g. the bytes of a PNG.
        decoding: the manifest's description of what comes out.
        invert: for images: swap dark and light before padding (black ink on white paper, for a
            model that was trained on white on black).

    Returns:
        One row of the model's data input; see the decoders for shapes and types.

    Raises:
        InputError: the body is no such media, is damaged, or is over a limit.
    """
    if invert and not isinstance(decoding, ImageDecoding):
        raise InputError("invert is for models that take images")
    match decoding:
        case ImageDecoding():
            return decode_image(body, decoding, max_pixels=limits.max_pixels, invert=invert)
        case AudioDecoding():
            return decode_audio(body, decoding, max_audio_s=limits.max_audio_s)
        case TextDecoding():
            return decode_text(body, decoding)
        case _:
            raise InputError("this model takes tensors, no media")
