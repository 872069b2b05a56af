"""`octet predict`: the files that people have, here and on a server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle.confidence import softmax
from bundle.serving import Serving, write_serving
from tests import onnx_models as made
from tests import tiny
from tests.conftest import LiveServer
from tests.service import calls
from training.onnx_import import ImportOptions, import_onnx

Octet = Callable[..., Any]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tiny-image 1 (stable) and 2, whose temperatures differ; tiny-audio; and imported tensors."""
    folder = tmp_path_factory.mktemp("predict") / "models"
    tiny.make_image_bundle(folder, version=1)
    tiny.make_image_bundle(folder, version=2, calibrated=False)
    tiny.make_audio_bundle(folder)
    write_serving(folder, "tiny-image", Serving(aliases={"stable": 1, "next": 2}))
    import_onnx(ImportOptions(made.save(folder.parent, made.two_inputs()), "adds"), folder)
    import_onnx(ImportOptions(made.save(folder.parent, made.same(made.STRING, ["N"])), "echo"), folder)
    return folder


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """The same image and sound in every form."""
    pixels, sound = calls.pixels(2), calls.sound()
    paths = {name: tmp_path / f"image.{name}" for name in ("png", "npy", "json", "npz")}
    paths |= {"wav": tmp_path / "sound.wav", "two": tmp_path / "two.npy", "instances": tmp_path / "two.json"}
    paths["png"].write_bytes(calls.png(pixels[0]))
    np.save(paths["npy"], pixels[0])
    np.save(paths["two"], pixels)
    np.savez(paths["npz"], pixels=pixels)
    paths["json"].write_text(json.dumps(pixels[0].tolist()))
    paths["instances"].write_text(json.dumps({"instances": pixels.tolist()}))
    paths["wav"].write_bytes(calls.wav(sound))
    return paths


def expected(pixels: np.ndarray, temperature: float = tiny.TEMPERATURE) -> list[dict[str, Any]]:
    """The oracle's best label and its probability."""
    rows = softmax(tiny.image_logits(pixels), temperature)
    return [{"label": tiny.LABELS[int(row.argmax())], "probability": float(row.max())} for row in rows]


def assert_same(found: list[dict[str, Any]], oracle: list[dict[str, Any]]) -> None:
    assert [row["label"] for row in found] == [row["label"] for row in oracle]
    np.testing.assert_allclose(
        [row["probability"] for row in found], [row["probability"] for row in oracle], atol=1e-5
    )


def test_an_image_gives_the_same_in_every_form(octet: Octet, models: Path, files: dict[str, Path]) -> None:
    forms = [files[form] for form in ("png", "npy", "json", "two", "npz", "instances")]
    ran = octet("predict", "tiny-image", *forms, "--models", models, "--json")
    assert ran.code == 0, ran.err
    one, two = expected(calls.pixels(2)[:1]), expected(calls.pixels(2))
    assert_same(ran.json, [*one, *one, *one, *two, *two, *two])
    assert [row["file"] for row in ran.json][:3] == [str(path) for path in forms[:3]]
    assert all(row["calibrated"] for row in ran.json)


def test_a_sound_is_heard(octet: Octet, models: Path, files: dict[str, Path]) -> None:
    (row,) = octet("predict", "tiny-audio", files["wav"], "--models", models, "--top", 1, "--json").json
    probabilities = softmax(tiny.audio_logits(calls.sound())[None], tiny.TEMPERATURE)[0]
    assert row["label"] == tiny.LABELS[int(probabilities.argmax())]
    assert len(row["top"]) == 1


def test_versions_and_aliases_name_a_bundle_and_stable_is_the_default(
    octet: Octet, models: Path, files: dict[str, Path]
) -> None:
    found = {
        which: octet("predict", which, files["npy"], "--models", models, "--json").json
        for which in ("tiny-image", "tiny-image/1", "tiny-image/2", "tiny-image/next")
    }
    assert found["tiny-image"] == found["tiny-image/1"]
    assert found["tiny-image/2"] == found["tiny-image/next"]
    assert_same(found["tiny-image"], expected(calls.pixels(2)[:1]))
    assert_same(found["tiny-image/2"], expected(calls.pixels(2)[:1], temperature=1))


def test_the_table_shows_label_and_confidence_and_warns_of_what_is_not_calibrated(
    octet: Octet, models: Path, files: dict[str, Path]
) -> None:
    (best,) = expected(calls.pixels(2)[:1])
    ran = octet("predict", "tiny-image", files["npy"], "--models", models)
    assert f"{best['label']}" in ran.out
    assert f"{best['probability']:.4f}" in ran.out
    assert ran.err == ""
    assert (
        "no temperature was fitted" in octet("predict", "tiny-image/2", files["npy"], "--models", models).err
    )


def test_tensors_are_shown_by_name(octet: Octet, models: Path, tmp_path: Path) -> None:
    a, b = np.ones((2, 4)), np.full((2, 4), 2, np.float32)
    np.savez(tmp_path / "in.npz", a=a, b=b, ids=np.array([7, 8]))
    ran = octet("predict", "adds", tmp_path / "in.npz", "--models", models, "--json")
    outputs = [{each["name"]: each["data"] for each in row["outputs"]} for row in ran.json]
    assert outputs == [{"total": [3.0] * 4, "same_ids": [7]}, {"total": [3.0] * 4, "same_ids": [8]}]
    table = octet("predict", "adds", tmp_path / "in.npz", "--models", models).out
    assert "3, 3, 3, 3" in table


def test_texts_come_from_json(octet: Octet, models: Path, tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text('{"inputs": {"x": ["ja", "né"]}}')
    ran = octet("predict", "echo", tmp_path / "in.json", "--models", models, "--json")
    assert [row["outputs"][0]["data"] for row in ran.json] == [["ja"], ["né"]]


@pytest.mark.parametrize(
    ("model", "name", "content", "reason"),
    [
        ("tiny-image", "gone.png", None, "gone.png cannot be read: No such file"),
        ("tiny-image", "bad.png", b"no image", "bad.png: "),
        ("tiny-image", "bad.npy", b"no array", "bad.npy: "),
        ("tiny-image", "bad.json", b"{", "bad.json: "),
        ("tiny-image", "bad.json", b"[[1, 2]]", "a row has the shape [1, 2]"),
        ("adds", "one.json", b'{"inputs": {"q": [1]}}', "there is no input 'q'"),
        ("nobody", "x.png", b"", "there is no model 'nobody'"),
        ("tiny-image/9", "x.png", b"", "there is no version 9 of tiny-image; there are 1, 2, next, stable"),
    ],
)
def test_what_cannot_be_predicted_is_one_line(
    octet: Octet, models: Path, tmp_path: Path, model: str, name: str, content: bytes | None, reason: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert reason in octet("predict", model, tmp_path / name, "--models", models).error


def test_a_running_server_says_the_same(
    octet: Octet, models: Path, files: dict[str, Path], start_service: Callable[..., LiveServer]
) -> None:
    server = start_service("--models", str(models))
    forms = [files[form] for form in ("png", "npy", "json", "instances")]
    here = octet("predict", "tiny-image", *forms, "--models", models, "--json")
    there = octet("predict", "tiny-image", *forms, "--url", server.url, "--json")
    assert there.code == 0, there.err
    assert_same(there.json, here.json)
    again = octet("predict", "tiny-image/2", files["npy"], "--url", server.url, "--json")
    assert_same(again.json, expected(calls.pixels(2)[:1], temperature=1))
    assert "there is no model" in octet("predict", "nobody", files["png"], "--url", server.url).error
