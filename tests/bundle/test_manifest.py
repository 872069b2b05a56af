from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bundle.errors import ManifestError
from bundle.manifest import MANIFEST_FILE, Manifest, TensorSpec, parse_manifest

Place = tuple[str | int, ...]
Write = Callable[[str | bytes], Path]


@pytest.fixture(scope="module")
def image_text(repository: Path) -> str:
    return (repository / "tiny-image" / "1" / MANIFEST_FILE).read_text()


@pytest.fixture(scope="module")
def audio_text(repository: Path) -> str:
    return (repository / "tiny-audio" / "1" / MANIFEST_FILE).read_text()


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a manifest; return its directory."""

    def write(content: str | bytes) -> Path:
        (tmp_path / MANIFEST_FILE).write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path

    return write


def changed(text: str, place: Place, value: object) -> str:
    """Return a JSON document in which the value at one place is another."""
    document = json.loads(text)
    target = document
    for step in place[:-1]:
        target = target[step]
    target[place[-1]] = value
    return json.dumps(document)


def read(directory: Path) -> Manifest:
    """Parse a directory's manifest."""
    path = directory / MANIFEST_FILE
    return parse_manifest(path.read_bytes(), path)


def refusal(directory: Path) -> str:
    """Return why a manifest is refused, after its path: one line that begins with it."""
    with pytest.raises(ManifestError) as caught:
        read(directory)
    message = str(caught.value)
    assert "\n" not in message
    path, _, reason = message.partition(f"{directory / MANIFEST_FILE}: ")
    assert path == ""
    return reason


def test_a_manifest_read_is_the_manifest_written(write: Write, image_text: str, audio_text: str) -> None:
    for text in (image_text, audio_text):
        manifest = read(write(text))
        assert manifest.model_dump(mode="json") == json.loads(text)


def test_a_manifest_cannot_be_changed(write: Write, image_text: str) -> None:
    manifest = read(write(image_text))
    with pytest.raises(ValidationError, match="frozen"):
        manifest.version = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"7", b'"text"', b"[" * 100_000, b"\x00", b"{}\n{}"]
)
def test_malformed_json_is_refused(write: Write, content: bytes) -> None:
    assert refusal(write(content)).startswith("the document: ")


def test_bytes_that_are_not_utf_8_are_refused(write: Write) -> None:
    assert "invalid unicode" in refusal(write(b'{"name": "\xff"}'))


@pytest.mark.parametrize(
    "place",
    [
        (),
        ("inputs", 0),
        ("outputs", 1),
        ("decoding",),
        ("session",),
        ("graphs", "int8"),
        ("graphs", "int8", "temperature"),
        ("graphs", "fp32", "metrics"),
        ("provenance",),
    ],
)
def test_an_unknown_field_is_refused_by_its_name_wherever_it_stands(
    write: Write, image_text: str, place: Place
) -> None:
    reason = refusal(write(changed(image_text, (*place, "surprise"), 1)))
    assert "surprise: Extra inputs are not permitted" in reason


def test_an_unknown_field_whose_name_holds_a_line_break_is_refused_in_one_line(
    write: Write, image_text: str
) -> None:
    assert "sur prise: Extra" in refusal(write(changed(image_text, ("sur\nprise",), 1)))


@pytest.mark.parametrize("version", [0, 2, "1", None, 1.5])
def test_an_unknown_schema_version_is_refused(write: Write, image_text: str, version: object) -> None:
    assert refusal(write(changed(image_text, ("schema_version",), version))).startswith("schema_version: ")


def test_every_field_without_a_default_is_needed(write: Write, image_text: str) -> None:
    document = json.loads(image_text)
    needed = [name for name, field in Manifest.model_fields.items() if field.is_required()]
    assert len(needed) > 10
    for name in needed:
        rest = {key: value for key, value in document.items() if key != name}
        assert refusal(write(json.dumps(rest))) == f"{name}: Field required"


@pytest.mark.parametrize(
    ("place", "value", "reason"),
    [
        (("name",), "../up", "name: "),
        (("name",), "Upper", "name: "),
        (("name",), "a\n", "name: "),
        (("version",), 0, "version: "),
        (("task",), "regression", "task: "),
        (("labels",), ["one"], "two labels or more"),
        (("labels",), ["one", "two", "two"], "a label stands twice"),
        (("labels",), ["one", "two"], "logits must be FP32 [batch, number of labels]"),
        (("max_batch_size",), 0, "max_batch_size: "),
        (("graphs", "int8", "file"), "../model.onnx", "graphs.int8.file: "),
        (("graphs", "int8", "file"), "other.onnx", "files gives no sha256 for other.onnx"),
        (("graphs", "fp16"), {"file": "model.fp32.onnx"}, "graphs.fp16"),
        (("graphs",), {"int8": {"file": "model.int8.onnx"}}, "graphs must hold 'fp32'"),
        (("graphs", "int8", "temperature", "value"), 0, "temperature.value: "),
        (("graphs", "int8", "temperature", "value"), float("nan"), "temperature.value: "),
        (("graphs", "int8", "temperature", "value"), float("inf"), "temperature.value: "),
        (("files", "golden.npz"), "abc", "files.golden.npz"),
        (("files", "../outside"), "0" * 64, "files.../outside"),
        (("files", "/etc/passwd"), "0" * 64, "files./etc/passwd"),
        (("files", "sub/file"), "0" * 64, "files.sub/file"),
        (("files", ".hidden"), "0" * 64, "files..hidden"),
        (("files", "line\n"), "0" * 64, "files.line "),
        (("files",), {}, "files gives no sha256 for README.md, golden.npz, model.fp32.onnx, model.int8.onnx"),
        (("inputs",), [], "inputs: "),
        (("inputs", 0, "shape"), [], "the first dimension must be 'batch' in all"),
        (("inputs", 0, "shape", 0), 1, "the first dimension must be 'batch'"),
        (("inputs", 0, "shape", 1), 0, "a fixed dimension must be at least 1"),
        (("inputs", 0, "shape", 1), -4, "a fixed dimension must be at least 1"),
        (("inputs", 0, "shape"), ["batch", "high", "wide"], "more than one free dimension"),
        (("inputs", 0, "datatype"), "FP65", "inputs.0.datatype: "),
        (("inputs", 0, "allowed_range"), [1, 1], "allowed_range must grow"),
        (("inputs", 0, "lengths_of"), "pixels", "must be INT64 [batch]"),
        (("outputs", 0, "name"), "features", "a tensor name stands twice"),
        (("outputs", 0, "name"), "scores", "must hold 'logits'"),
        (("outputs", 0, "shape"), ["batch", 4], "logits must be FP32 [batch, number of labels]"),
        (("decoding", "kind"), "video", "decoding: "),
        (("decoding", "channels"), 2, "decoding.image.channels: "),
        (("decoding", "background"), 256, "decoding.image.background: "),
        (("session", "intra_op_threads"), 0, "session.intra_op_threads: "),
        (("provenance", "config_sha256"), "0" * 63, "provenance.config_sha256: "),
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused_for_its_reason(
    write: Write, image_text: str, place: Place, value: object, reason: str
) -> None:
    assert reason in refusal(write(changed(image_text, place, value)))


@pytest.mark.parametrize(
    ("place", "value", "reason"),
    [
        (("inputs", 1, "datatype"), "INT32", "must be INT64 [batch]"),
        (("inputs", 1, "shape"), ["batch", 1], "must be INT64 [batch]"),
        (("inputs", 1, "lengths_of"), "nothing", "another input that has a free dimension"),
        (("inputs", 1, "lengths_of"), "lengths", "another input that has a free dimension"),
        (("inputs", 0, "shape"), ["batch", 100], "another input that has a free dimension"),
        (("inputs", 1, "lengths_of"), None, "must have exactly one data input"),
    ],
)
def test_lengths_must_be_those_of_an_input_with_a_free_dimension(
    write: Write, audio_text: str, place: Place, value: object, reason: str
) -> None:
    assert reason in refusal(write(changed(audio_text, place, value)))


def test_an_alphabet_that_holds_a_character_twice_is_refused(write: Write, image_text: str) -> None:
    decoding = {"kind": "text", "alphabet": "abca", "unknown_index": 3, "max_characters": 9}
    assert "a character twice" in refusal(write(changed(image_text, ("decoding",), decoding)))


@pytest.mark.parametrize(
    ("decoding", "datatype", "shape"),
    [
        ({"kind": "image", "height": 4, "width": 4, "channels": 1, "background": 0}, "UINT8", [4, 4]),
        ({"kind": "image", "height": 4, "width": 5, "channels": 3, "background": 0}, "UINT8", [4, 5, 3]),
        ({"kind": "audio", "sample_rate_hz": 8000}, "FP32", ["time"]),
        ({"kind": "text", "alphabet": "abc", "unknown_index": 3, "max_characters": 9}, "INT64", ["time"]),
    ],
)
def test_media_must_be_decoded_to_what_the_graph_takes(
    write: Write, image_text: str, decoding: dict[str, object], datatype: str, shape: list[object]
) -> None:
    text = changed(image_text, ("decoding",), decoding)
    text = changed(text, ("inputs", 0, "datatype"), datatype)
    assert (
        read(write(changed(text, ("inputs", 0, "shape"), ["batch", *shape]))).decoding.kind
        == decoding["kind"]
    )
    for wrong in (["batch", *shape, 2], ["batch", 9, 9], ["batch"]):
        assert "is decoded to" in refusal(write(changed(text, ("inputs", 0, "shape"), wrong)))
    text = changed(text, ("inputs", 0, "datatype"), "INT32")
    assert "is decoded to" in refusal(write(changed(text, ("inputs", 0, "shape"), ["batch", *shape])))


def test_a_manifest_without_a_schema_version_is_refused(write: Write, image_text: str) -> None:
    document = json.loads(image_text)
    del document["schema_version"]
    assert refusal(write(json.dumps(document))) == "schema_version: Field required"


def test_data_inputs_are_all_but_the_lengths(write: Write, audio_text: str) -> None:
    manifest = read(write(audio_text))
    assert [tensor.name for tensor in manifest.data_inputs] == ["samples"]
    assert manifest.data_inputs[0].row_shape == ("time",)


@given(st.lists(st.one_of(st.integers(1, 9), st.sampled_from(["time", "high"])), max_size=4))
def test_free_dimensions_are_the_named_ones_of_a_row(sizes: list[Any]) -> None:
    spec = TensorSpec(name="x", datatype="FP32", shape=("batch", *sizes))
    assert spec.free_dimensions == sum(size in ("time", "high") for size in sizes)


@given(data=st.data())
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_manifest_is_understood_or_refused_in_one_line(
    write: Write, image_text: str, data: st.DataObject
) -> None:
    body = bytearray(image_text.encode())
    position = data.draw(st.integers(0, len(body) - 1))
    body[position : position + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        read(write(bytes(body)))
    except ManifestError as error:
        lines = str(error).splitlines()
        assert len(lines) == 1


def test_a_copy_with_other_inputs_does_not_keep_what_was_derived_from_the_old_ones(
    write: Write, image_text: str
) -> None:
    tiny = read(write(image_text))
    (pixels,) = tiny.data_inputs
    assert pixels.row_shape == pixels.shape[1:]
    other = pixels.model_copy(update={"shape": ("batch", 5, "width")})
    assert (other.row_shape, other.free_dimensions) == ((5, "width"), 1)
    copy = tiny.model_copy(update={"inputs": (other,)})
    assert copy.data_inputs == (other,)
    assert tiny.data_inputs == (pixels,)
