from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from bundle.errors import BundleError, IntegrityError, ManifestError
from bundle.manifest import MANIFEST_FILE, REPORT_FILE, REPORT_PAGE
from bundle.repository import list_bundles, read_bundle

FILES = ["README.md", "golden.npz", "model.fp32.onnx", "model.int8.onnx"]


@pytest.fixture
def bundle_path(repository: Path, tmp_path: Path) -> Path:
    """A copy of tiny-image/1 that the test may damage."""
    return Path(shutil.copytree(repository / "tiny-image" / "1", tmp_path / "models" / "tiny-image" / "1"))


def refusal(directory: Path, kind: type[BundleError] = IntegrityError) -> str:
    with pytest.raises(kind) as caught:
        read_bundle(directory)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_whole_bundle_is_read_with_all_of_its_files(bundle_path: Path) -> None:
    bundle = read_bundle(bundle_path)
    assert bundle.files == {name: (bundle_path / name).read_bytes() for name in FILES}
    assert bundle.graph("int8") == (bundle_path / "model.int8.onnx").read_bytes()
    assert bundle.graph("fp32") == (bundle_path / "model.fp32.onnx").read_bytes()
    assert bundle.manifest_sha256 == hashlib.sha256((bundle_path / MANIFEST_FILE).read_bytes()).hexdigest()


@pytest.fixture
def reported_path(bundle_path: Path) -> Path:
    """The same with a report."""
    manifest = json.loads((bundle_path / MANIFEST_FILE).read_bytes())
    for name in (REPORT_FILE, REPORT_PAGE):
        (bundle_path / name).write_bytes(name.encode())
        manifest["files"][name] = hashlib.sha256(name.encode()).hexdigest()
    (bundle_path / MANIFEST_FILE).write_text(json.dumps(manifest))
    return bundle_path


def test_a_report_is_verified_but_not_held(reported_path: Path) -> None:
    bundle = read_bundle(reported_path)
    assert set(bundle.files) == set(FILES)
    assert bundle.read(REPORT_PAGE) == b"report.html"
    assert bundle.read("golden.npz") == bundle.files["golden.npz"]
    (reported_path / REPORT_PAGE).write_bytes(b"another")
    assert refusal(reported_path).startswith(f"{reported_path / REPORT_PAGE}: it was changed")


def test_a_report_that_was_changed_or_removed_since_is_not_read(reported_path: Path) -> None:
    bundle = read_bundle(reported_path)
    (reported_path / REPORT_PAGE).write_bytes(b"another")
    with pytest.raises(IntegrityError, match=r"report\.html: it was changed"):
        bundle.read(REPORT_PAGE)
    (reported_path / REPORT_FILE).unlink()
    with pytest.raises(IntegrityError, match=r"report\.json: it is missing"):
        bundle.read(REPORT_FILE)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(bundle_path: Path, name: str) -> None:
    (bundle_path / name).unlink()
    message = refusal(bundle_path)
    assert message == f"{bundle_path / name}: it is missing or cannot be read (No such file or directory)"


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("position", [0, -1])
def test_one_changed_bit_is_noticed_and_its_file_named(bundle_path: Path, name: str, position: int) -> None:
    content = bytearray((bundle_path / name).read_bytes())
    content[position] ^= 1
    (bundle_path / name).write_bytes(content)
    assert refusal(bundle_path).startswith(f"{bundle_path / name}: it was changed (SHA-256 ")


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_or_longer_file_is_noticed(bundle_path: Path, name: str) -> None:
    whole = (bundle_path / name).read_bytes()
    for content in (b"", whole[:-1], whole + b"\n"):
        (bundle_path / name).write_bytes(content)
        assert "it was changed" in refusal(bundle_path)


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_what_is_no_regular_file_is_named_and_not_waited_for(bundle_path: Path, name: str) -> None:
    (bundle_path / name).unlink()
    (bundle_path / name).mkdir()
    assert refusal(bundle_path) == f"{bundle_path / name}: it is not a regular file"
    (bundle_path / name).rmdir()
    os.mkfifo(bundle_path / name)
    assert refusal(bundle_path) == f"{bundle_path / name}: it is not a regular file"


def test_a_manifest_that_is_missing_or_leads_outside_is_refused(bundle_path: Path) -> None:
    outside = bundle_path.parents[1] / "outside.json"
    (bundle_path / "manifest.json").rename(outside)
    assert "manifest.json: it is missing or cannot be read" in refusal(bundle_path)
    (bundle_path / "manifest.json").symlink_to(outside)
    assert "manifest.json: it leads outside" in refusal(bundle_path)


def test_a_link_out_of_the_directory_is_refused_though_its_content_is_right(bundle_path: Path) -> None:
    outside = bundle_path.parents[1] / "outside.onnx"
    (bundle_path / "model.int8.onnx").rename(outside)
    (bundle_path / "model.int8.onnx").symlink_to(outside)
    assert refusal(bundle_path) == (
        f"{bundle_path / 'model.int8.onnx'}: it leads outside the bundle's directory"
    )


def test_a_link_within_the_directory_is_followed(bundle_path: Path) -> None:
    (bundle_path / "model.int8.onnx").rename(bundle_path / "elsewhere")
    (bundle_path / "model.int8.onnx").symlink_to("elsewhere")
    assert set(read_bundle(bundle_path).files) == set(FILES)


def test_a_link_to_itself_is_refused(bundle_path: Path) -> None:
    (bundle_path / "README.md").unlink()
    (bundle_path / "README.md").symlink_to("README.md")
    assert "README.md: it is a link that leads to itself" in refusal(bundle_path)


def test_a_bundle_reached_through_a_link_to_its_directory_is_read(bundle_path: Path) -> None:
    linked = bundle_path.parents[1] / "linked"
    linked.symlink_to(bundle_path.parent)
    assert "but lies in linked/1" in refusal(linked / "1", ManifestError)
    other = bundle_path.parents[2] / "mounted"
    other.symlink_to(bundle_path.parents[1])
    assert set(read_bundle(other / "tiny-image" / "1").files) == set(FILES)


@pytest.mark.parametrize(
    "name", ["../1/README.md", "../../tiny-image/1/README.md", "/etc/hostname", "a/../README.md"]
)
def test_a_file_name_that_is_a_path_is_refused(bundle_path: Path, name: str) -> None:
    document = json.loads((bundle_path / MANIFEST_FILE).read_text())
    document["files"][name] = document["files"]["README.md"]
    (bundle_path / MANIFEST_FILE).write_text(json.dumps(document))
    assert refusal(bundle_path, ManifestError).startswith(f"{bundle_path / MANIFEST_FILE}: files.{name}")


@pytest.mark.parametrize("place", ["other/1", "tiny-image/2", "tiny-image/01", "tiny-image/one"])
def test_a_bundle_in_the_place_of_another_is_refused(bundle_path: Path, place: str) -> None:
    moved = bundle_path.parents[1] / place
    moved.parent.mkdir(exist_ok=True)
    bundle_path.rename(moved)
    assert refusal(moved, ManifestError) == (
        f"{moved / MANIFEST_FILE}: it describes tiny-image/1, but lies in {place}"
    )


def test_every_version_of_every_model_is_listed_in_growing_order(tmp_path: Path) -> None:
    for place in ("b/10", "b/9", "a.model-1_x/1", "b/100"):
        (tmp_path / place).mkdir(parents=True)
    assert list_bundles(tmp_path) == {"a.model-1_x": [1], "b": [9, 10, 100]}


def test_what_is_no_model_or_no_version_is_left_alone(tmp_path: Path) -> None:
    for place in (
        ".publishing-x/1",
        "Upper/1",
        "a\n/1",
        "b/0",
        "b/01",
        "b/-1",
        "b/.publishing-1",
        "b/²",
        "c",
    ):
        (tmp_path / place).mkdir(parents=True)
    (tmp_path / "b" / "3").write_text("a file")
    (tmp_path / "d").write_text("a file")
    assert list_bundles(tmp_path) == {}


def test_a_repository_that_is_no_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"the model repository \S+/nowhere is not a directory"):
        list_bundles(tmp_path / "nowhere")
