from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from bundle.decoding import decode_image
from bundle.errors import InputError
from bundle.media import ImageDecoding
from tests.bundle.damage import damaged, repair_checksums

# The module itself silences these at import; pytest's `error` filter would come before that. That none
# escapes where it matters is shown by a test with an interpreter of its own.
pytestmark = pytest.mark.filterwarnings(r"ignore::UserWarning:PIL\..*")

ROOT = Path(__file__).parents[2]
GREY = ImageDecoding(height=28, width=28, channels=1, background=0)
COLOUR = ImageDecoding(height=28, width=28, channels=3, background=0)
RANDOM = np.random.default_rng(0)
NOISE = RANDOM.integers(0, 256, (28, 28), dtype=np.uint8)
COLOUR_NOISE = RANDOM.integers(0, 256, (28, 28, 3), dtype=np.uint8)


def encode(image: Image.Image | np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decode(body: bytes, decoding: ImageDecoding = GREY, **options: Any) -> np.ndarray:
    return decode_image(body, decoding, **{"max_pixels": 1_000_000, **options})


def grey(background: int = 0, size: int = 4) -> ImageDecoding:
    return ImageDecoding(height=size, width=size, channels=1, background=background)


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def claim_size(width: int, height: int) -> bytes:
    """A PNG of a hundred bytes whose header claims any size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + crc

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + content


# Images that are the model's already


def test_a_grey_png_of_the_right_size_passes_bit_for_bit() -> None:
    found = decode(encode(NOISE))
    np.testing.assert_array_equal(found, NOISE)
    assert found.dtype == np.uint8
    assert found.flags.writeable


def test_a_colour_png_of_the_right_size_passes_bit_for_bit_to_three_channels() -> None:
    np.testing.assert_array_equal(decode(encode(COLOUR_NOISE), COLOUR), COLOUR_NOISE)


def test_invert_is_255_minus_the_value() -> None:
    np.testing.assert_array_equal(decode(encode(NOISE), invert=True), 255 - NOISE)
    np.testing.assert_array_equal(decode(encode(COLOUR_NOISE), COLOUR, invert=True), 255 - COLOUR_NOISE)


def test_a_grey_image_has_three_equal_channels_for_a_colour_model() -> None:
    np.testing.assert_array_equal(decode(encode(NOISE), COLOUR), np.stack([NOISE] * 3, axis=-1))


# Size


@given(width=st.integers(1, 90), height=st.integers(1, 90), background=st.sampled_from([0, 100]))
@example(width=28, height=28, background=0)
@example(width=2000, height=1, background=0)
@example(width=1, height=2000, background=0)
@settings(max_examples=60)
def test_any_size_is_fitted_in_proportion_and_centred_on_the_background(
    width: int, height: int, background: int
) -> None:
    white = Image.new("L", (width, height), 255)
    found = decode(encode(white), grey(background, size=28))
    scale = min(28 / width, 28 / height)
    inner_width, inner_height = max(1, round(width * scale)), max(1, round(height * scale))
    left, top = (28 - inner_width) // 2, (28 - inner_height) // 2
    expected = np.full((28, 28), background, np.uint8)
    expected[top : top + inner_height, left : left + inner_width] = 255
    np.testing.assert_array_equal(found, expected)


def test_the_height_and_width_of_a_model_may_differ() -> None:
    wide = ImageDecoding(height=10, width=20, channels=3, background=9)
    found = decode(encode(Image.new("RGB", (50, 50), (1, 2, 3))), wide)
    assert found.shape == (10, 20, 3)
    assert (found[:, 5:15] == (1, 2, 3)).all()
    assert (found[:, :5] == 9).all()
    assert (found[:, 15:] == 9).all()


def test_a_fine_checkerboard_shrinks_to_grey_and_not_to_noise() -> None:
    board = (np.indices((280, 280)).sum(axis=0) % 2 * 255).astype(np.uint8)
    found = decode(encode(board)).astype(int)
    assert np.abs(found - 127.5).max() < 5


def test_shrinking_by_a_whole_factor_is_near_the_mean_of_each_block() -> None:
    ramp = np.add.outer(np.arange(112), np.arange(112)).astype(np.uint8)  # smooth, 0..222
    blocks = ramp.reshape(28, 4, 28, 4).mean(axis=(1, 3))
    assert np.abs(decode(encode(ramp)) - blocks)[1:-1, 1:-1].max() <= 1


def test_a_colour_photo_becomes_the_luma_of_itu_r_601() -> None:
    expected = COLOUR_NOISE @ np.array([0.299, 0.587, 0.114])
    assert np.abs(decode(encode(COLOUR_NOISE)) - expected).max() <= 1


def test_a_jpeg_photo_of_any_size_is_near_its_original() -> None:
    x, y = np.meshgrid(np.linspace(0, 1, 300), np.linspace(0, 1, 200))
    photo = np.stack([x * 255, y * 255, (x + y) * 127], axis=-1).astype(np.uint8)
    found = decode(encode(photo, "JPEG", quality=95), COLOUR).astype(int)
    np.testing.assert_array_equal(found[:4], 0)  # padding above: 28 x 19 pixels of photo
    np.testing.assert_array_equal(found[23:], 0)
    middle = found[14, 14]
    assert np.abs(middle - [131, 134, 132]).max() < 8


# Orientation

UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.T,
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].T,
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_of_a_png_is_turned_upright(orientation: int) -> None:
    found = decode(encode(NOISE, exif=exif(orientation)))
    np.testing.assert_array_equal(found, UPRIGHT[orientation](NOISE))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_of_a_jpeg_is_turned_upright_before_it_is_fitted(orientation: int) -> None:
    quarters = np.array([[0, 80], [160, 240], [40, 200]], np.uint8).repeat(16, 0).repeat(16, 1)  # 48 x 32
    found = decode(encode(quarters, "JPEG", quality=100, exif=exif(orientation)), grey(0, size=48))
    upright = UPRIGHT[orientation](quarters)
    expected = np.zeros((48, 48), np.uint8)
    top, left = (48 - upright.shape[0]) // 2, (48 - upright.shape[1]) // 2
    expected[top : top + upright.shape[0], left : left + upright.shape[1]] = upright
    assert np.abs(found.astype(int) - expected).max() <= 3


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_an_unknown_orientation_is_no_turn(orientation: int) -> None:
    np.testing.assert_array_equal(decode(encode(NOISE, exif=exif(orientation))), NOISE)


# Transparency


def transparent_images() -> dict[str, Image.Image | tuple[Image.Image, dict[str, Any]]]:
    """4 x 4 images whose left half is black and opaque, the right half wholly transparent."""
    alpha = np.zeros((4, 4), np.uint8)
    alpha[:, :2] = 255
    shade = np.where(alpha, 0, 200).astype(np.uint8)
    palette = Image.fromarray(np.where(alpha, 0, 1).astype(np.uint8), "P")
    palette.putpalette([0, 0, 0, 200, 200, 200])
    ones = Image.fromarray(np.where(alpha, 0, 255).astype(np.uint8)).convert("1")
    return {
        "RGBA": Image.fromarray(np.dstack([shade, shade, shade, alpha])),
        "LA": Image.fromarray(np.dstack([shade, alpha]), "LA"),
        "palette with one index": (palette, {"transparency": 1}),
        "palette with an alpha each": (palette, {"transparency": b"\xff\x00"}),
        "L with one shade": (Image.fromarray(shade), {"transparency": 200}),
        "RGB with one colour": (Image.fromarray(np.dstack([shade] * 3)), {"transparency": (200,) * 3}),
        "one bit": (ones, {"transparency": 255}),
        "16-bit grey": (
            Image.fromarray(np.where(alpha, 0, 51_400).astype(np.uint16)),
            {"transparency": 51_400},
        ),
    }


TRANSPARENT = transparent_images()


@pytest.mark.parametrize("name", TRANSPARENT)
@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_transparent_becomes_the_background_inverted_or_not(
    name: str, invert: bool, channels: Any
) -> None:
    image = TRANSPARENT[name]
    body = encode(image[0], **image[1]) if isinstance(image, tuple) else encode(image)
    decoding = ImageDecoding(height=6, width=4, channels=channels, background=77)
    found = decode(body, decoding, invert=invert)
    expected = np.full((6, 4), 77, np.uint8)
    expected[1:5, :2] = 255 if invert else 0
    np.testing.assert_array_equal(found, expected if channels == 1 else np.stack([expected] * 3, axis=-1))


@given(value=st.integers(0, 255), alpha=st.integers(0, 255), background=st.integers(0, 255))
@settings(max_examples=60)
def test_what_is_half_transparent_is_mixed_with_the_background(
    value: int, alpha: int, background: int
) -> None:
    body = encode(Image.new("LA", (4, 4), (value, alpha)))
    expected = value * alpha / 255 + background * (1 - alpha / 255)
    assert np.abs(decode(body, grey(background)) - expected).max() <= 1


# Modes


def test_one_bit_images_become_0_and_255() -> None:
    bits = NOISE > 127
    np.testing.assert_array_equal(decode(encode(Image.fromarray(bits))), bits * 255)


def test_palette_images_have_the_colours_of_their_palette() -> None:
    image = Image.fromarray(NOISE % 4, "P")
    colours = np.array([[0, 0, 0], [255, 0, 0], [10, 20, 30], [255, 255, 255]], np.uint8)
    image.putpalette(colours.ravel().tolist())
    np.testing.assert_array_equal(decode(encode(image), COLOUR), colours[NOISE % 4])


def test_16_bit_grey_is_scaled_and_not_clipped() -> None:
    np.testing.assert_array_equal(decode(encode(NOISE.astype(np.uint16) * 257)), NOISE)
    wide = RANDOM.integers(0, 65536, (28, 28), dtype=np.uint16)
    assert np.abs(decode(encode(wide)) - wide / 257).max() <= 1


def test_a_cmyk_jpeg_has_the_colours_it_was_made_of() -> None:
    image = Image.new("RGB", (28, 28), (200, 100, 50)).convert("CMYK")
    found = decode(encode(image, "JPEG", quality=95), COLOUR)
    assert np.abs(found.astype(int) - (200, 100, 50)).max() <= 4


def test_an_animated_png_is_its_first_picture() -> None:
    second = Image.new("L", (28, 28), 9)
    np.testing.assert_array_equal(decode(encode(NOISE, save_all=True, append_images=[second])), NOISE)


def test_a_phone_photo_of_several_pictures_is_its_first() -> None:
    first, second = Image.new("RGB", (28, 28), (50, 50, 50)), Image.new("RGB", (28, 28), (200, 0, 0))
    found = decode(encode(first, "MPO", save_all=True, append_images=[second]))
    assert np.abs(found.astype(int) - 50).max() <= 1


# Refusals


def test_as_many_pixels_as_allowed_pass_and_one_more_is_refused() -> None:
    np.testing.assert_array_equal(decode(encode(NOISE), max_pixels=28 * 28), NOISE)
    with pytest.raises(InputError, match=r"28 x 28 pixels; at most 783"):
        decode(encode(NOISE), max_pixels=28 * 28 - 1)


@pytest.mark.parametrize(("width", "height"), [(60_000, 60_000), (2**31 - 1, 2**31 - 1), (1, 1_000_001)])
def test_a_small_file_that_claims_a_huge_size_is_refused_by_its_header(width: int, height: int) -> None:
    body = claim_size(width, height)
    assert len(body) < 100
    with pytest.raises(InputError, match=f"{width} x {height} pixels"):
        decode(body)


def test_a_file_that_claims_more_than_it_holds_is_damaged() -> None:
    with pytest.raises(InputError, match="damaged"):
        decode(claim_size(900, 900))


def test_a_palette_png_without_its_palette_is_damaged() -> None:
    image = Image.fromarray(NOISE % 4, "P")
    body = repair_checksums(encode(image).replace(b"PLTE", b"prIv"))
    with pytest.raises(InputError, match="damaged"):
        decode(body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x89PNG\r\n\x1a\n",
        b"This is a text, whatever its name says.",
        encode(NOISE, "GIF"),
        encode(NOISE, "BMP"),
        encode(NOISE, "TIFF"),
        encode(NOISE, "WEBP"),
        b"\x00" * 1000,
    ],
    ids=["empty", "signature", "text", "gif", "bmp", "tiff", "webp", "zeros"],
)
def test_what_is_neither_png_nor_jpeg_is_refused(body: bytes) -> None:
    with pytest.raises(InputError, match="not a PNG or JPEG image"):
        decode(body)


PHOTO = RANDOM.integers(0, 256, (40, 60, 3), dtype=np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.7, 0.9])
def test_a_truncated_image_is_refused(kind: str, share: float) -> None:
    body = encode(PHOTO, kind)
    with pytest.raises(InputError):
        decode(body[: int(len(body) * share)])


# Damage


def tagged() -> Image.Exif:
    tags = exif(6)
    tags[0x010F] = "maker"
    tags[0x011A] = 72.0
    tags[0x8769] = {0x9000: b"0230", 0x927C: b"x" * 20}
    return tags


SMALL = Image.fromarray(RANDOM.integers(0, 256, (9, 12, 4), dtype=np.uint8))
ORIGINALS = [
    encode(SMALL.convert("L")),
    encode(SMALL, exif=tagged()),
    encode(SMALL.convert("LA")),
    encode(SMALL.convert("1")),
    encode(SMALL.convert("P"), transparency=b"\x00\x10\x20"),
    encode(SMALL.convert("RGB"), transparency=(1, 2, 3)),
    encode(RANDOM.integers(0, 65536, (9, 12), dtype=np.uint16)),
    encode(SMALL.convert("L"), save_all=True, append_images=[SMALL.convert("L")]),
    encode(SMALL.convert("L"), "JPEG"),
    encode(SMALL.convert("RGB"), "JPEG", exif=tagged(), progressive=True),
    encode(SMALL.convert("RGB"), "JPEG", exif=tagged()),
    encode(SMALL.convert("CMYK"), "JPEG", exif=tagged()),
    encode(SMALL.convert("RGB"), "MPO", save_all=True, append_images=[SMALL.convert("RGB")]),
]


@given(body=damaged(ORIGINALS, header_bytes=400), channels=st.sampled_from([1, 3]), invert=st.booleans())
@settings(max_examples=1200)
def test_a_damaged_image_is_decoded_or_refused_and_nothing_else(
    body: bytes, channels: Any, invert: bool
) -> None:
    decoding = ImageDecoding(height=4, width=4, channels=channels, background=0)
    try:
        found = decode(body, decoding, invert=invert)
    except InputError:
        return
    assert found.shape == ((4, 4) if channels == 1 else (4, 4, 3))
    assert found.dtype == np.uint8


@given(body=st.binary(max_size=200), signature=st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"]))
@settings(max_examples=200)
def test_arbitrary_bytes_are_refused(body: bytes, signature: bytes) -> None:
    with pytest.raises(InputError):
        decode(signature + body)


def test_a_photo_whose_exif_is_damaged_is_decoded_and_no_warning_escapes() -> None:
    body = encode(NOISE, "JPEG", exif=tagged()).replace(
        b"\x01\x0f\x00\x02\x00\x00\x00", b"\x01\x0f\x00\x02\x7f\x00\x00"
    )
    with pytest.warns(UserWarning, match="larger than file"):
        Image.open(io.BytesIO(body)).getexif()
    program = (
        "import sys; from bundle.decoding import decode_image; from bundle.media import ImageDecoding\n"
        "decoding = ImageDecoding(height=28, width=28, channels=1, background=0)\n"
        "sys.stdout.buffer.write(decode_image(sys.stdin.buffer.read(), decoding, max_pixels=1000).tobytes())"
    )
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, input=body, capture_output=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    upright = decode(encode(NOISE, "JPEG", exif=exif(6)))
    np.testing.assert_array_equal(np.frombuffer(done.stdout, np.uint8).reshape(28, 28), upright)
