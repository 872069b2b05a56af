import email.message
from collections.abc import Sequence

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle.errors import InputError
from service.api.forms import boundary_of, read_files

PART = b'--x\r\nContent-Disposition: form-data; name="f"; filename="a.png"\r\n\r\ncontent'


def sent(files: Sequence[bytes]) -> tuple[bytes, bytes]:
    """The body that a client makes of files, and its boundary."""
    request = httpx.Request("POST", "http://octet", files=[("f", ("name", each)) for each in files])
    return request.read(), boundary_of(request.headers["content-type"])


@given(st.lists(st.binary(max_size=2000), min_size=1, max_size=5))
def test_the_files_that_a_client_sends_come_out_as_they_were(files: list[bytes]) -> None:
    assert read_files(*sent(files), max_files=5) == files


@given(content=st.binary(max_size=200), boundary=st.binary(min_size=1, max_size=80))
def test_whatever_comes_is_read_or_refused(content: bytes, boundary: bytes) -> None:
    for body in (content, b"--" + boundary + b"\r\n" + content):
        try:
            files = read_files(body, boundary, 3)
        except InputError:
            continue
        assert 1 <= len(files) <= 3


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "cut off"),
        (b"--x--\r\n", "holds no file"),
        (b"hello", "cannot be read"),
        (PART, "cut off"),
        (PART + b"\r\n--x", "cut off"),
        (PART + b"\r\n--xy\r\n", "cut off"),
        (b"--x\r\n\r\ncontent\r\n--x--\r\n", "has no Content-Disposition of form-data"),
        (b"--x\r\nContent-Disposition: attachment; filename=a\r\n\r\n\r\n--x--", "no Content-Disposition"),
        (b'--x\r\nContent-Disposition: form-data; name="top_k"\r\n\r\n1\r\n--x--\r\n', "field 'top_k' is no"),
        (b"--x\r\nbad header\r\n\r\n\r\n--x--\r\n", "cannot be read"),
        ((PART + b"\r\n") * 4 + b"--x--\r\n", "more than 3 files"),
    ],
)
def test_a_form_that_cannot_be_used_is_refused_with_its_reason(body: bytes, words: str) -> None:
    with pytest.raises(InputError) as refused:
        read_files(body, b"x", 3)
    assert words in str(refused.value)


def test_a_form_needs_a_boundary_that_is_not_too_long() -> None:
    with pytest.raises(InputError, match="needs a boundary"):
        read_files(PART, boundary_of("multipart/form-data"), 3)
    with pytest.raises(InputError, match="cannot be read"):
        read_files(PART, b"x" * 1000, 3)


@given(st.text(alphabet="abc019'()+_,-./:=? ", min_size=1, max_size=70).filter(lambda text: text[-1] != " "))
def test_a_boundary_is_found_quoted(boundary: str) -> None:
    message = email.message.Message()
    message["Content-Type"] = "multipart/form-data"
    message.set_param("boundary", boundary, requote=True)
    assert boundary_of(str(message["Content-Type"])) == boundary.encode()
