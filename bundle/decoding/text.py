"""Decode UTF-8 text to the character indices that a graph takes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bundle.errors import InputError
from bundle.media import TextDecoding


def decode_text(body: bytes, decoding: TextDecoding) -> NDArray[np.int64]:
    """Decode text to the index of each of its characters in the model's alphabet.

    Args:
        body: UTF-8 text, at least one character, at most `decoding.max_characters`.

    Returns:
        (time,) int64; characters outside the alphabet become `decoding.unknown_index`.

    Raises:
        InputError: not UTF-8, empty, or too long.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"the text is not UTF-8: {error}") from error
    if not 1 <= len(text) <= decoding.max_characters:
        raise InputError(f"the text has {len(text)} characters; 1 to {decoding.max_characters} are allowed")
    index = {character: i for i, character in enumerate(decoding.alphabet)}
    return np.array([index.get(character, decoding.unknown_index) for character in text], dtype=np.int64)
