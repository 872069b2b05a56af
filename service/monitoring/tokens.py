"""Prediction ids: signed tokens that carry what is needed to judge an answer once its right label is known.

So any replica that has the key takes any other's, and nothing about an answer is stored. Whoever holds one
can read it: it tells what the answer told.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

from service.errors import ForgedFeedbackError
from service.monitoring.keys import Keys

# Sets are carried at these alphas, whatever a caller asks, so that what is counted can be compared.
FIXED_ALPHAS = (0.05, 0.1)
# Sets among more labels are not carried.
MOST_LABELS = 256

_FORMAT = 1
_SIGNATURE_BYTES = 16
_NONCE_BYTES = 8
_GRAPH_BYTES = 4
_START = struct.Struct(">BB4s")  # format, length of "<model>/<version>", digest of the graph
_TIME = struct.Struct(">I")
_ROW = struct.Struct(">HHfB")  # number of the row, answer, confidence, flags
_ACCEPTED, _JUDGED = 1, 2
_TO_URL = bytes.maketrans(b"+/", b"-_")
# Longer than any that was ever signed.
_LONGEST = 1024

# Takes the number of a row, its answer, its confidence, whether it was accepted, and the p-values of the
# labels; None for the last two where there is no evidence. Gives the prediction id.
Mint = Callable[[int, int, float, bool | None, list[float] | None], str]


@dataclass(frozen=True)
class Claim:
    """What a prediction id says of an answer.

    Attributes:
        graph: first bytes of the SHA-256 of the graph that ran.
        issued_s: Unix time.
        nonce: no other answer's.
        answer: index of the label.
        confidence: calibrated.
        accepted: by the bundle's own policy; None where there was no evidence for any.
        sets: for each of `FIXED_ALPHAS` the labels with a larger p-value, as bits; None as above.
    """

    model: str
    version: str
    graph: bytes
    issued_s: int
    nonce: bytes
    answer: int
    confidence: float
    accepted: bool | None
    sets: tuple[int, ...] | None


class Minter:
    """Makes the prediction ids of one version of a model.

    Args:
        keys: the current one signs.
        graph_sha256: of the graph that runs.
        labels: how many there are.
    """

    def __init__(self, keys: Keys, model: str, version: str, graph_sha256: str, labels: int) -> None:
        name = f"{model}/{version}".encode()
        self._head = _START.pack(_FORMAT, len(name), graph_prefix(graph_sha256)) + name
        self._hash = hashlib.blake2b(key=keys.current, digest_size=_SIGNATURE_BYTES)
        self._set_bytes = _set_bytes(labels)

    def begin(self) -> Mint:
        """Return what mints the ids of the rows of one call."""
        head = self._head + _TIME.pack(int(time.time())) + os.urandom(_NONCE_BYTES)
        copy, size = self._hash.copy, self._set_bytes
        low, high = FIXED_ALPHAS

        def mint(
            row: int, answer: int, confidence: float, accepted: bool | None, p_values: list[float] | None
        ) -> str:
            flags = 0 if accepted is None else _JUDGED + accepted
            content = head + _ROW.pack(row & 0xFFFF, answer, confidence, flags)
            if size and p_values is not None:
                wide = narrow = 0
                for label, p in enumerate(p_values):
                    if p > low:
                        wide |= 1 << label
                        if p > high:
                            narrow |= 1 << label
                content += wide.to_bytes(size, "big") + narrow.to_bytes(size, "big")
            signing = copy()
            signing.update(content)
            token = binascii.b2a_base64(content + signing.digest(), newline=False)
            return token.translate(_TO_URL).rstrip(b"=").decode("ascii")

        return mint


def graph_prefix(graph_sha256: str) -> bytes:
    """Return by what a prediction id names a graph."""
    return bytes.fromhex(graph_sha256)[:_GRAPH_BYTES]


def read_token(keys: Keys, token: str) -> Claim:
    """Return what a prediction id says.

    Raises:
        ForgedFeedbackError: no key that is known has signed it.
    """
    signed = _decode(token)
    content, signature = signed[:-_SIGNATURE_BYTES], signed[-_SIGNATURE_BYTES:]
    expected = [hashlib.blake2b(content, key=key, digest_size=_SIGNATURE_BYTES).digest() for key in keys.all]
    if not any(hmac.compare_digest(signature, each) for each in expected):
        raise _forged()
    return _parse(content)


def _forged() -> ForgedFeedbackError:
    return ForgedFeedbackError(
        "the prediction_id is not one that was given here, or its key is not known any more"
    )


def _decode(token: str) -> bytes:
    try:
        if len(token) > _LONGEST:
            raise _forged()
        padded = token + "=" * (-len(token) % 4)
        return base64.b64decode(padded.encode("ascii"), altchars=b"-_", validate=True)
    except (ValueError, UnicodeEncodeError) as error:
        raise _forged() from error


def _parse(content: bytes) -> Claim:
    """Take apart what was signed here, by this version of the service or another."""
    form, length, graph = _START.unpack_from(content)
    if form != _FORMAT:
        raise _forged()
    at = _START.size
    model, _, version = content[at : at + length].decode().partition("/")
    at += length
    (issued_s,) = _TIME.unpack_from(content, at)
    at += _TIME.size
    end = at + _NONCE_BYTES
    row, answer, confidence, flags = _ROW.unpack_from(content, end)
    sets = content[end + _ROW.size :]
    size = len(sets) // 2
    return Claim(
        model=model,
        version=version,
        graph=graph,
        issued_s=issued_s,
        nonce=content[at:end] + row.to_bytes(2, "big"),
        answer=answer,
        confidence=confidence,
        accepted=bool(flags & _ACCEPTED) if flags & _JUDGED else None,
        sets=(int.from_bytes(sets[:size], "big"), int.from_bytes(sets[size:], "big")) if size else None,
    )


def _set_bytes(labels: int) -> int:
    return (labels + 7) // 8 if labels <= MOST_LABELS else 0
