"""Turn what media were decoded to back into media, so that a person can see or hear what a model was given.

What `bundle.decoding` makes of such a file is the same array again, element for element.
"""

from __future__ import annotations

import io

import numpy as np
import soundfile
from PIL import Image

from bundle.datatypes import Array
from bundle.media import AudioDecoding, Decoding, ImageDecoding, TextDecoding

PNG = "image/png"
WAV = "audio/wav"
TEXT = "text/plain"


def media_type_of(decoding: Decoding) -> str | None:
    """Return what `encode_media` makes for a model; None where it takes no media."""
    match decoding:
        case ImageDecoding():
            return PNG
        case AudioDecoding():
            return WAV
        case TextDecoding():
            return TEXT
        case _:
            return None


def encode_media(array: Array, decoding: Decoding) -> bytes:
    """Return a decoded item as a file: an image as PNG, a sound as WAV, a text as UTF-8.

    A character that the model does not know became one index for all such; it is shown as U+FFFD.

    Args:
        array: one row of the model's data input; see the decoders for shapes and types.

    Raises:
        ValueError: the model takes no media.
    """
    match decoding:
        case ImageDecoding():
            return _png(array)
        case AudioDecoding(sample_rate_hz=rate_hz):
            return _wav(array, rate_hz)
        case TextDecoding(alphabet=alphabet):
            return "".join(
                alphabet[index] if 0 <= index < len(alphabet) else "\N{REPLACEMENT CHARACTER}"
                for index in array.tolist()
            ).encode()
        case _:
            raise ValueError("the model takes tensors, no media")


def _png(pixels: Array) -> bytes:
    """(height, width) or (height, width, 3) uint8 to PNG."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def _wav(samples: Array, rate_hz: int) -> bytes:
    """(time,) float32 in -1..1 to WAV in floating point: 16 bit would round."""
    buffer = io.BytesIO()
    soundfile.write(buffer, np.asarray(samples, np.float32), rate_hz, format="WAV", subtype="FLOAT")
    return buffer.getvalue()
