"""A bundle is in the repository whole or not at all, whoever is killed and whoever races."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from bundle.manifest import Manifest
from bundle.repository import list_bundles, read_bundle
from tests import tiny
from training.errors import PublishError
from training.publish import digests, next_version, publish

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published bundle to take manifest and files from."""
    return tiny.make_image_bundle(tmp_path_factory.mktemp("template"))


@pytest.fixture
def files(template: Path) -> dict[str, bytes]:
    return dict(read_bundle(template).files)


def manifest_of(template: Path, version: int) -> Manifest:
    return read_bundle(template).manifest.model_copy(update={"version": version})


def left_in(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*")}


def test_digests_are_sha256_in_order_of_name() -> None:
    found = digests({"b": b"2", "a": b"1"})
    assert list(found.items()) == [(n, hashlib.sha256(c).hexdigest()) for n, c in (("a", b"1"), ("b", b"2"))]


def test_versions_count_up_from_1(tmp_path: Path, template: Path, files: dict[str, bytes]) -> None:
    assert next_version(tmp_path / "not-there", "tiny-image") == 1
    assert next_version(tmp_path, "tiny-image") == 1
    publish(manifest_of(template, 1), files, tmp_path)
    publish(manifest_of(template, 12), files, tmp_path)
    assert next_version(tmp_path, "tiny-image") == 13
    assert next_version(tmp_path, "other") == 1


def test_what_is_published_reads_back_and_nothing_else_is_left(
    tmp_path: Path, template: Path, files: dict[str, bytes]
) -> None:
    manifest = manifest_of(template, 3)
    directory = publish(manifest, files, tmp_path / "models")
    assert directory == tmp_path / "models" / "tiny-image" / "3"
    bundle = read_bundle(directory)
    assert (bundle.manifest, bundle.files) == (manifest, files)
    assert left_in(tmp_path) == {"models", "tiny-image", "3", "manifest.json", *files}
    assert directory.stat().st_mode & 0o777 == 0o755  # another user serves it


def test_an_existing_version_is_refused_and_stays(
    tmp_path: Path, template: Path, files: dict[str, bytes]
) -> None:
    directory = publish(manifest_of(template, 1), files, tmp_path)
    before = read_bundle(directory).manifest_sha256
    other = manifest_of(template, 1).model_copy(update={"description": "Another."})
    with pytest.raises(PublishError, match="1 exists; a published version never changes"):
        publish(other, files, tmp_path)
    assert read_bundle(directory).manifest_sha256 == before


def test_a_lower_version_is_refused(tmp_path: Path, template: Path, files: dict[str, bytes]) -> None:
    publish(manifest_of(template, 5), files, tmp_path)
    with pytest.raises(PublishError, match="4 would be older than the latest version"):
        publish(manifest_of(template, 4), files, tmp_path)
    assert list_bundles(tmp_path) == {"tiny-image": [5]}


@pytest.mark.parametrize("change", ["content", "missing", "more"])
def test_files_that_are_not_those_of_the_manifest_are_refused(
    tmp_path: Path, template: Path, files: dict[str, bytes], change: str
) -> None:
    if change == "content":
        files["README.md"] += b"!"
    elif change == "missing":
        del files["README.md"]
    else:
        files["extra.txt"] = b""
    with pytest.raises(PublishError, match="not those that the manifest names"):
        publish(manifest_of(template, 1), files, tmp_path / "models")
    assert left_in(tmp_path) == set()


@pytest.mark.parametrize("blocked", ["models", "models/tiny-image"])
def test_a_repository_that_cannot_be_written_is_one_line(
    tmp_path: Path, template: Path, files: dict[str, bytes], blocked: str
) -> None:
    path = tmp_path / blocked
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"a file where a directory should be")
    with pytest.raises(PublishError, match=r"tiny-image/1 could not be published") as caught:
        publish(manifest_of(template, 1), files, tmp_path / "models")
    assert "\n" not in str(caught.value)


def test_a_disk_that_refuses_leaves_nothing(
    tmp_path: Path, template: Path, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("training.publish.os.fsync", refuse)
    with pytest.raises(PublishError, match="No space left on device"):
        publish(manifest_of(template, 1), files, tmp_path)
    assert left_in(tmp_path) == {"tiny-image"}


def test_of_racing_publishers_just_one_wins(tmp_path: Path, template: Path, files: dict[str, bytes]) -> None:
    for version in range(1, 6):
        start = threading.Barrier(4)
        won: list[int] = []
        lost: list[str] = []

        def race(i: int, version: int = version, start: threading.Barrier = start) -> None:
            manifest = manifest_of(template, version).model_copy(update={"description": str(i)})
            start.wait()
            try:
                publish(manifest, files, tmp_path)
                won.append(i)  # noqa: B023 - joined before the next round
            except PublishError as error:
                lost.append(str(error))  # noqa: B023

        threads = [threading.Thread(target=race, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(won), len(lost)) == (1, 3)
        bundle = read_bundle(tmp_path / "tiny-image" / str(version))
        assert bundle.manifest.description == str(won[0])
    assert not any(path.name.startswith(".") for path in (tmp_path / "tiny-image").iterdir())


PUBLISHER = """
import sys
from pathlib import Path
from bundle.repository import read_bundle
from training.publish import next_version, publish

template, repository = read_bundle(Path(sys.argv[1])), Path(sys.argv[2])
print("ready", flush=True)
while True:
    version = next_version(repository, "tiny-image")
    publish(template.manifest.model_copy(update={"version": version}), template.files, repository)
"""


def test_a_publisher_that_is_killed_at_any_moment_leaves_only_whole_bundles(
    tmp_path: Path, template: Path
) -> None:
    repository = tmp_path / "models"
    repository.mkdir()
    moments = random.Random(0)
    seen = 0
    for _ in range(8):
        process = subprocess.Popen(
            [sys.executable, "-c", PUBLISHER, str(template), str(repository)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
        )
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            end = time.monotonic() + moments.uniform(0.005, 0.08)
            while time.monotonic() < end:  # a reader beside the writer
                for version in list_bundles(repository).get("tiny-image", [])[-2:]:
                    read_bundle(repository / "tiny-image" / str(version))
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
        versions = list_bundles(repository).get("tiny-image", [])
        for version in versions:
            read_bundle(repository / "tiny-image" / str(version))
        assert versions == list(range(1, len(versions) + 1))
        seen = max(seen, len(versions))
    assert seen > 0


def test_what_a_killed_publisher_left_is_hidden_and_in_nobodys_way(
    tmp_path: Path, template: Path, files: dict[str, bytes]
) -> None:
    leftover = tmp_path / "tiny-image" / ".publishing-abc"
    leftover.mkdir(parents=True)
    (leftover / "manifest.json").write_text("{")
    assert list_bundles(tmp_path) == {}
    assert next_version(tmp_path, "tiny-image") == 1
    publish(manifest_of(template, 1), files, tmp_path)
    assert list_bundles(tmp_path) == {"tiny-image": [1]}
