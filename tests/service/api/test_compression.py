from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle.errors import InputError
from service.api.compression import Coding, coding_of, compress, decompress, wanted_coding
from service.errors import BodyTooLargeError, UnsupportedMediaError


def raw_deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(body) + packer.flush()


def small_window(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=9)
    return packer.compress(body) + packer.flush()


PACKERS = [gzip.compress, zlib.compress, raw_deflate, small_window]
each_packer = pytest.mark.parametrize("pack", PACKERS, ids=lambda pack: pack.__name__)


@each_packer
@given(body=st.binary(max_size=2000))
def test_a_body_comes_back_however_it_was_compressed(pack: object, body: bytes) -> None:
    assert decompress(pack(body), 2000) == body  # type: ignore[operator]


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@given(body=st.binary(max_size=2000))
def test_an_answer_is_read_by_any_client(coding: Coding, body: bytes) -> None:
    read = {"gzip": gzip.decompress, "deflate": zlib.decompress}[coding]
    assert read(compress(body, coding)) == body


@each_packer
def test_a_body_may_be_as_large_as_is_allowed_and_no_larger(pack: object) -> None:
    assert decompress(pack(b"a" * 1000), 1000) == b"a" * 1000  # type: ignore[operator]
    with pytest.raises(BodyTooLargeError, match="the allowed 999 bytes"):
        decompress(pack(b"a" * 1000), 999)  # type: ignore[operator]


def test_a_bomb_is_refused_without_being_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    longest = 0
    make = zlib.decompressobj

    class Watched:
        def __init__(self, wbits: int) -> None:
            self._inner = make(wbits)

        def decompress(self, body: bytes, max_length: int) -> bytes:
            nonlocal longest
            content = self._inner.decompress(body, max_length)
            longest = max(longest, len(content))
            return content

    bomb = gzip.compress(bytes(50_000_000))
    assert len(bomb) < 100_000
    monkeypatch.setattr(zlib, "decompressobj", Watched)
    with pytest.raises(BodyTooLargeError):
        decompress(bomb, 100_000)
    assert 0 < longest <= 100_001


@each_packer
@given(data=st.data())
def test_a_cut_body_is_refused(pack: object, data: st.DataObject) -> None:
    packed = pack(b"some content, and some content more")  # type: ignore[operator]
    cut = packed[: data.draw(st.integers(0, len(packed) - 1))]
    with pytest.raises(InputError, match=r"cut off|cannot be decompressed"):
        decompress(cut, 1000)


@each_packer
def test_a_body_with_more_behind_its_end_is_refused(pack: object) -> None:
    with pytest.raises(InputError, match="more behind its end"):
        decompress(pack(b"content") + b"x", 1000)  # type: ignore[operator]


@given(st.binary(max_size=200))
def test_any_bytes_are_a_body_or_refused(body: bytes) -> None:
    try:
        content = decompress(body, 10_000)
    except (InputError, BodyTooLargeError):
        return
    assert isinstance(content, bytes)


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        *[("", None), ("identity", None), ("gzip", "gzip"), (" GZIP ", "gzip"), ("x-gzip", "gzip")],
        ("deflate", "deflate"),
    ],
)
def test_the_coding_of_a_body_is_known_by_its_header(sent: str, expected: Coding | None) -> None:
    assert coding_of(sent) == expected


@pytest.mark.parametrize("sent", ["br", "chunked", "gzip, deflate", "compress", "zstd", "*"])
def test_other_codings_are_not_supported(sent: str) -> None:
    with pytest.raises(UnsupportedMediaError, match="is not supported"):
        coding_of(sent)


@pytest.mark.parametrize(
    ("accepted", "expected"),
    [
        *[("gzip", "gzip"), ("deflate", "deflate"), ("GZip", "gzip"), ("", None), ("identity", None)],
        *[("gzip, deflate", None), ("gzip, deflate, br, zstd", None), ("*", None), ("br", None)],
    ],
)
def test_an_answer_is_compressed_for_who_asks_for_one_coding(accepted: str, expected: Coding | None) -> None:
    assert wanted_coding(accepted) == expected
