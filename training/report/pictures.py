"""Single items as pictures and sounds that stand within a page."""

from __future__ import annotations

import base64
import io
from html import escape

import matplotlib as mpl
import numpy as np
import soundfile
from matplotlib.colors import Colormap
from numpy.typing import NDArray
from PIL import Image
from scipy import signal

from bundle.datatypes import Array
from bundle.manifest import Manifest
from bundle.media import AudioDecoding, ImageDecoding
from training.report.drawing import BOTH_WAYS

_WINDOW_S = 0.032
_HOP_S = 0.010
_RANGE_DB = 70.0


def show_item(manifest: Manifest, item: Array) -> str:
    """Return an image, or a sound's spectrogram with the sound itself; nothing for other items."""
    match manifest.decoding:
        case ImageDecoding():
            return _image_tag(_png(item), "the image")
        case AudioDecoding(sample_rate_hz=rate_hz):
            player = (
                f'<audio controls preload="none" src="data:audio/wav;base64,{_wav(item, rate_hz)}"></audio>'
            )
            return _image_tag(_png(spectrogram(item, rate_hz)), "its spectrogram") + player
    return ""


def show_picture(manifest: Manifest, item: Array) -> str:
    """Return the picture of an item alone."""
    decoding = manifest.decoding
    pixels = spectrogram(item, decoding.sample_rate_hz) if isinstance(decoding, AudioDecoding) else item
    return _image_tag(_png(pixels), "an item")


def show_shades(values: NDArray[np.floating]) -> str:
    """Return values around 0 as a picture: what is 0 cannot be seen."""
    top = float(np.abs(values).max()) or 1.0
    return _image_tag(_png(_to_bytes(values / top / 2 + 0.5, BOTH_WAYS)), "where the answer rests")


def spectrogram(samples: Array, sample_rate_hz: int) -> NDArray[np.uint8]:
    """Return (frequencies, steps, 3) uint8: the power over time, low frequencies at the bottom."""
    window = min(len(samples), round(_WINDOW_S * sample_rate_hz))
    overlap = max(0, window - round(_HOP_S * sample_rate_hz))
    _, _, power = signal.spectrogram(
        np.asarray(samples, np.float64), sample_rate_hz, nperseg=window, noverlap=min(overlap, window - 1)
    )
    decibels = 10 * np.log10(power + 1e-12)
    shares = ((decibels - decibels.max()) / _RANGE_DB + 1).clip(0, 1)
    return _to_bytes(shares[::-1], mpl.colormaps["magma"])[..., :3]


def _to_bytes(shares: NDArray[np.floating], colors: Colormap) -> NDArray[np.uint8]:
    return np.asarray(colors(shares) * 255).round().astype(np.uint8)


def _png(pixels: Array) -> str:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def _wav(samples: Array, sample_rate_hz: int) -> str:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, sample_rate_hz, format="WAV", subtype="PCM_16")
    return base64.b64encode(buffer.getvalue()).decode()


def _image_tag(png: str, what: str) -> str:
    return f'<img alt="{escape(what)}" src="data:image/png;base64,{png}">'
