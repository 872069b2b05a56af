"""Decode PNG and JPEG images to the fixed size that a graph takes."""

from __future__ import annotations

import io
import struct
import warnings
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageChops, UnidentifiedImageError

from bundle.errors import InputError
from bundle.media import ImageDecoding

# Pillow's own bomb check warns or raises at fixed sizes, process-wide. The caller's limit is checked
# against the header below instead, before a single pixel is decoded.
Image.MAX_IMAGE_PIXELS = None
# Pillow warns of odd metadata, which is up to the sender: nothing that the log should show. Set once,
# because `catch_warnings` is not safe where several threads decode.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

FORMATS = ("PNG", "JPEG")

# What Pillow's decoders and its EXIF reader raise for damaged files (found by fuzzing, see the tests).
_DAMAGE = (
    AssertionError, AttributeError, EOFError, IndexError, KeyError, OSError, OverflowError, SyntaxError,
    TypeError, ValueError, struct.error, zlib.error,
)  # fmt: skip

# EXIF orientation -> what turns the image upright. Pillow's own `exif_transpose` also writes the
# metadata anew, which fails where they are odd.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode_image(
    body: bytes, decoding: ImageDecoding, *, max_pixels: int, invert: bool = False
) -> NDArray[np.uint8]:
    """Decode an image, turn it upright, flatten it, and fit it into the model's size.

    An image that has the model's size and mode already passes bit for bit. Any other one is turned
    by its EXIF orientation, laid over the background colour where it is transparent, brought to the
    model's channels, scaled to fit (antialiased, keeping its proportions) and centred on the
    background colour. Dark and light are never guessed: `invert` swaps them.

    Args:
        body: a PNG or JPEG file.
        max_pixels: largest width times height, checked before decoding.

    Returns:
        (height, width) uint8 for one channel, (height, width, 3) uint8 for three.

    Raises:
        InputError: not such a file, damaged, or too large.
    """
    try:
        with Image.open(io.BytesIO(body), formats=FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise InputError(
                    f"the image has {image.width} x {image.height} pixels; at most {max_pixels} are allowed"
                )
            image.load()
            flat = _flatten(_turn_upright(image), decoding, invert=invert)
    except UnidentifiedImageError as error:
        raise InputError("the body is not a PNG or JPEG image") from error
    except _DAMAGE as error:
        raise InputError(f"the image is damaged: {error}") from error
    return np.asarray(_fit(flat, decoding), dtype=np.uint8).copy()


def _turn_upright(image: Image.Image) -> Image.Image:
    turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    return image if turn is None else image.transpose(turn)


def _flatten(image: Image.Image, decoding: ImageDecoding, *, invert: bool) -> Image.Image:
    """Bring any mode to plain "L" or "RGB" over the background, inverted if asked."""
    mode = "L" if decoding.channels == 1 else "RGB"
    if image.mode.startswith("I"):  # 16-bit grey: Pillow's own conversion would clip, not scale
        wide = np.asarray(image, dtype=np.int64)
        grey = Image.fromarray((wide.clip(0, 65535) // 257).astype(np.uint8))
        if "transparency" in image.info:  # one of the 65536 shades
            grey.putalpha(
                Image.fromarray(np.where(wide == image.info["transparency"], 0, 255).astype(np.uint8))
            )
        image = grey
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        alpha = layer.getchannel("A")
        colours = layer.convert("RGB").convert(mode)
        colours = ImageChops.invert(colours) if invert else colours
        ground = Image.new(mode, layer.size, _colour(decoding))
        return Image.composite(colours, ground, alpha)
    plain = image if image.mode == mode else image.convert(mode)
    return ImageChops.invert(plain) if invert else plain


def _fit(image: Image.Image, decoding: ImageDecoding) -> Image.Image:
    target = (decoding.width, decoding.height)
    if image.size == target:
        return image
    scale = min(target[0] / image.width, target[1] / image.height)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    # Pillow widens the filter by the scale when it shrinks an image: this is the antialiasing.
    small = image.resize(size, Image.Resampling.BILINEAR)
    canvas = Image.new(image.mode, target, _colour(decoding))
    canvas.paste(small, ((target[0] - size[0]) // 2, (target[1] - size[1]) // 2))
    return canvas


def _colour(decoding: ImageDecoding) -> int | tuple[int, ...]:
    return decoding.background if decoding.channels == 1 else (decoding.background,) * 3
