from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from bundle.errors import BundleError, TrustError
from bundle.predictor import load_predictor
from bundle.repository import read_bundle
from bundle.trusted import list_digests, read_trusted
from tests import tiny

DIGEST = "0123456789abcdef" * 4


def written(folder: Path, text: str) -> Path:
    path = folder / "trusted"
    path.write_text(text)
    return path


def test_digests_are_those_of_the_manifests_and_what_lists_them_is_read_back(
    repository: Path, tmp_path: Path
) -> None:
    digests = list_digests(repository)
    assert set(digests) == {"tiny-audio/1", "tiny-image/1", "tiny-image/2"}
    for name, digest in digests.items():
        assert digest == hashlib.sha256((repository / name / "manifest.json").read_bytes()).hexdigest()
        assert digest == read_bundle(repository / name).manifest_sha256
    lines = "".join(f"{digest}  {name}\n" for name, digest in digests.items())
    assert read_trusted(written(tmp_path, lines)).digests == digests


def test_what_sha256sum_prints_is_understood(repository: Path, tmp_path: Path) -> None:
    manifests = sorted(str(path.relative_to(repository)) for path in repository.glob("*/*/manifest.json"))
    for flag in ("--text", "--binary"):
        printed = subprocess.run(
            ["sha256sum", flag, *manifests], cwd=repository, capture_output=True, text=True, check=True
        ).stdout
        assert read_trusted(written(tmp_path, printed)).digests == list_digests(repository)


def test_comments_and_empty_lines_say_nothing(tmp_path: Path) -> None:
    path = written(tmp_path, f"# ours\n\n{DIGEST}  m/1  # the first\n   \n{DIGEST} *m/2\n")
    assert read_trusted(path).digests == {"m/1": DIGEST, "m/2": DIGEST}
    assert read_trusted(written(tmp_path, "")).digests == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"{DIGEST[:-1]}  m/1", "line 1 is not '<sha256>  <name>/<version>'"),
        (f"{DIGEST.upper()}  m/1", "line 1 is not"),
        (f"# c\n{DIGEST} m/1", "line 2 is not"),
        (f"{DIGEST}  m", "line 1 is not"),
        (f"{DIGEST}  m/0", "line 1 is not"),
        (f"{DIGEST}  m/1/model.onnx", "line 1 is not"),
        (f"{DIGEST}  m/1\n{DIGEST[::-1]}  m/1", "line 2 gives m/1 another digest than a line before"),
    ],
)
def test_a_line_that_cannot_be_understood_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(TrustError, match=words):
        read_trusted(written(tmp_path, text))


def test_a_list_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrustError, match=r"nowhere: it cannot be read \(No such file or directory\)"):
        read_trusted(tmp_path / "nowhere")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(TrustError, match="it is not UTF-8"):
        read_trusted(tmp_path / "binary")


def test_only_what_is_listed_is_loaded(repository: Path, tmp_path: Path) -> None:
    digests = list_digests(repository)
    one = read_trusted(written(tmp_path, f"{digests['tiny-image/1']}  tiny-image/1"))
    assert load_predictor(repository / "tiny-image" / "1", trusted=one).precision == "int8"
    with pytest.raises(TrustError, match="trusted does not list tiny-image/2"):
        load_predictor(repository / "tiny-image" / "2", trusted=one)


def test_a_bundle_that_is_whole_but_another_is_not_loaded(repository: Path, tmp_path: Path) -> None:
    """Its digests agree with one another; only the list knows that it is not the one that was meant."""
    listed = read_trusted(written(tmp_path, f"{list_digests(repository)['tiny-image/1']}  tiny-image/1"))
    forged = tiny.make_image_bundle(
        tmp_path / "models", change=lambda manifest: manifest.model_copy(update={"description": "Forged."})
    )
    assert load_predictor(forged).precision == "int8"
    with pytest.raises(TrustError, match=r"its manifest\.json is not the trusted one"):
        load_predictor(forged, trusted=listed)


def test_a_manifest_that_is_missing_has_no_digest(tmp_path: Path) -> None:
    (tmp_path / "m" / "1").mkdir(parents=True)
    with pytest.raises(TrustError, match=r"manifest\.json: it cannot be read"):
        list_digests(tmp_path)
    with pytest.raises(BundleError, match="is not a directory"):
        list_digests(tmp_path / "nowhere")
