"""Decode WAV sounds to the sample rate that a graph takes."""

from __future__ import annotations

import io
import struct

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from bundle.errors import InputError
from bundle.media import AudioDecoding

MAX_RATE_HZ = 192_000
MAX_CHANNELS = 8
SUBTYPES = ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")
# What ffmpeg, for one, leaves in place of a size that it cannot know when it writes into a pipe.
_UNKNOWN_SIZE = 0xFFFFFFFF


def decode_audio(body: bytes, decoding: AudioDecoding, *, max_audio_s: float) -> NDArray[np.float32]:
    """Decode a WAV file, average its channels and resample it to the model's rate.

    A mono file at the model's rate passes sample for sample. Values are clipped into -1..1.

    Args:
        body: a WAV file, 8 to 32 bit integers or floating point, up to 8 channels, from the model's
            rate up to 192 kHz.
        max_audio_s: longest sound, checked before decoding.

    Returns:
        (time,) float32 in -1..1 at `decoding.sample_rate_hz`, at least one sample.

    Raises:
        InputError: not such a file, truncated, empty, not finite, or over a limit.
    """
    _check_whole(body)
    try:
        with soundfile.SoundFile(io.BytesIO(body)) as sound:
            _check_format(sound, decoding, max_audio_s)
            samples = sound.read(dtype="float32", always_2d=True)  # (time, channels)
            rate_hz = sound.samplerate
    except (soundfile.SoundFileError, ValueError, TypeError) as error:
        raise InputError(f"the body is not a readable WAV file: {error}") from error
    if samples.shape[0] == 0:
        raise InputError("the sound is empty")
    if not np.isfinite(samples).all():
        raise InputError("the sound holds values that are not finite numbers")
    # Clipped before as well as after: sums of huge values would overflow.
    samples = samples.clip(-1.0, 1.0)
    mono = samples.mean(axis=1) if samples.shape[1] > 1 else samples[:, 0]
    if rate_hz != decoding.sample_rate_hz:
        mono = soxr.resample(mono, rate_hz, decoding.sample_rate_hz, quality="HQ")
        if mono.shape[0] == 0:
            raise InputError("the sound is too short")
    return np.ascontiguousarray(mono, dtype=np.float32).clip(-1.0, 1.0)


def _check_format(sound: soundfile.SoundFile, decoding: AudioDecoding, max_audio_s: float) -> None:
    rate_hz, channels = int(sound.samplerate), int(sound.channels)
    if not decoding.sample_rate_hz <= rate_hz <= MAX_RATE_HZ:
        raise InputError(
            f"the sound has {rate_hz} samples a second; "
            f"{decoding.sample_rate_hz} to {MAX_RATE_HZ} are allowed"
        )
    if channels > MAX_CHANNELS:
        raise InputError(f"the sound has {channels} channels; at most {MAX_CHANNELS} are allowed")
    if sound.subtype not in SUBTYPES:
        raise InputError(f"the sound is encoded as {sound.subtype}; integers and floating point are allowed")
    seconds = sound.frames / rate_hz
    if seconds > max_audio_s:
        raise InputError(f"the sound lasts {seconds:.1f} s; at most {max_audio_s:g} s are allowed")


def _check_whole(body: bytes) -> None:
    """Refuse a file whose data chunk promises more than came; libsndfile would not mind."""
    if len(body) < 12 or body[:4] != b"RIFF" or body[8:12] != b"WAVE":
        raise InputError("the body is not a WAV file")
    position = 12
    while position + 8 <= len(body):
        chunk, size = struct.unpack_from("<4sI", body, position)
        position += 8
        if chunk == b"data":
            if size != _UNKNOWN_SIZE and position + size > len(body):
                raise InputError(
                    f"the WAV file is truncated: its data chunk promises {size} bytes, "
                    f"{len(body) - position} came"
                )
            return
        position += size + size % 2  # chunks are aligned to two bytes
    raise InputError("the WAV file is truncated: it has no data chunk")
