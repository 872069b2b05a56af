"""`multipart/form-data`: several media files in one body, one row each, in their order."""

from __future__ import annotations

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from bundle.errors import InputError

MULTIPART = "multipart/form-data"


def boundary_of(content_type: str) -> bytes:
    """Return what separates the parts of a form, by its Content-Type header; empty where it does not say."""
    _, options = parse_options_header(content_type)
    return options.get(b"boundary", b"")


def read_files(body: bytes, boundary: bytes, max_files: int) -> list[bytes]:
    """Return the contents of the files in a form.

    Raises:
        InputError: it is malformed or cut off, holds anything but files, no file at all, or too many.
    """
    if not boundary:
        raise InputError(f"a body of {MULTIPART} needs a boundary in its Content-Type header")
    reader = _Reader(max_files)
    try:
        MultipartParser(
            boundary,
            {
                "on_part_begin": reader.begin_part,
                "on_header_field": reader.add_to_name,
                "on_header_value": reader.add_to_value,
                "on_header_end": reader.end_header,
                "on_headers_finished": reader.end_headers,
                "on_part_data": reader.add_to_file,
                "on_end": reader.end,
            },
        ).write(body)
    except FormParserError as error:
        raise InputError(f"the form cannot be read: {error}") from error
    if not reader.ended:
        raise InputError("the form is cut off: its last boundary is missing")
    if not reader.files:
        raise InputError("the form holds no file")
    return [bytes(content) for content in reader.files]


class _Reader:
    """Collects what the parser finds.

    Attributes:
        files: their contents.
        ended: whether the form's last boundary came.
    """

    def __init__(self, max_files: int) -> None:
        self.files: list[bytearray] = []
        self.ended = False
        self._max_files = max_files
        self._name = b""
        self._value = b""
        self._disposition = b""

    def begin_part(self) -> None:
        self._disposition = b""
        if len(self.files) == self._max_files:
            raise InputError(f"the form has more than {self._max_files} files, which is the most allowed")

    def add_to_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def add_to_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def end_header(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = self._value
        self._name = self._value = b""

    def end_headers(self) -> None:
        kind, options = parse_options_header(self._disposition)
        if kind != b"form-data":
            raise InputError("a part of the form has no Content-Disposition of form-data")
        if b"filename" not in options:
            name = options.get(b"name", b"").decode(errors="replace")
            raise InputError(f"the form's field {name[:80]!r} is no file; a form may hold files only")
        self.files.append(bytearray())

    def add_to_file(self, data: bytes, start: int, end: int) -> None:
        self.files[-1] += data[start:end]

    def end(self) -> None:
        self.ended = True
