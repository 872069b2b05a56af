"""Look into an ONNX file without the onnx package: does it reach for data outside itself?

A graph may keep tensors in other files, named by a path that the runtime follows. Such a file has no
digest of its own and may lie anywhere, so a bundle's graphs must be whole. Only the protocol buffer's
structure is walked; tensor contents are skipped by their length.
"""

from __future__ import annotations

from collections.abc import Iterator

from bundle.errors import GraphError

# message -> {field number: message of that field}, of onnx.proto (ONNX IR version 10)
_FIELDS = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "location"},
    "location": {},
}
_MAX_DEPTH = 64


def check_self_contained(model: bytes) -> None:
    """Check that an ONNX model holds all of its tensors itself.

    Raises:
        GraphError: a tensor lies in another file, or the bytes are no protocol buffer.
    """
    try:
        for entry in _entries(memoryview(model), "model", 0):
            pairs = {number: bytes(value) for number, value in _read(entry) if isinstance(value, memoryview)}
            if pairs.get(1) == b"location":
                where = pairs.get(2, b"").decode("utf-8", "replace")
                raise GraphError(f"it keeps tensors outside itself, in {where!r}")
    except (IndexError, RecursionError, ValueError) as error:
        raise GraphError("it is not an ONNX file") from error


def _entries(message: memoryview, kind: str, depth: int) -> Iterator[memoryview]:
    """Yield every external-data entry (a key and a value) below a message."""
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deeply")
    if kind == "location":
        yield message
        return
    for number, value in _read(message):
        if number in _FIELDS[kind] and isinstance(value, memoryview):
            yield from _entries(value, _FIELDS[kind][number], depth + 1)


def _read(message: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Yield (field number, content) of a message; see the protocol buffers encoding, "wire types"."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        # Parsers in C++ drop what lies above 32 bits; a tag must not mean one thing there and another here.
        number, wire_type = (tag & 0xFFFFFFFF) >> 3, tag & 7
        match wire_type:
            case 0:
                value, position = _varint(message, position)
                yield number, value
            case 1 | 5:
                position += 8 if wire_type == 1 else 4
            case 2:
                size, position = _varint(message, position)
                if position + size > len(message):
                    raise ValueError("a field is longer than the message")
                yield number, message[position : position + size]
                position += size
            case _:
                raise ValueError(f"wire type {wire_type}")


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("a number is too long")
