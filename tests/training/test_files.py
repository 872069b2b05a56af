"""Files of a data set: verified downloads, archives, and what a damaged or hostile one leaves behind."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from training.data.files import digest_of, ensure_archive, ensure_files, missing_files, sha256_of
from training.errors import DataError

CONTENTS = {"one.bin": os.urandom(3_000_000), "two.bin": b"two"}
CHECKSUMS = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENTS.items()}
SOUNDS = {"recordings/a.wav": b"a" * 5000, "recordings/b.wav": b"b" * 7000}
SOUND_CHECKSUMS = {name: hashlib.sha256(content).hexdigest() for name, content in SOUNDS.items()}


class Site:
    """A web site on this machine. `pages` maps path -> content; `manner` is how they are sent."""

    def __init__(self) -> None:
        self.pages: dict[str, bytes] = {}
        self.manner = "whole"
        self.requests: list[str] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                site.requests.append(self.path)
                site.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        content = self.pages.get(handler.path)
        handler.close_connection = True
        if content is None:
            handler.send_error(404)
            return
        handler.send_response(200)
        if self.manner == "broken chunks":
            handler.send_header("Transfer-Encoding", "chunked")
            handler.end_headers()
            handler.wfile.write(b"%x\r\n" % len(content) + content[: len(content) // 2])
            return
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content if self.manner == "whole" else content[: len(content) // 2])


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    thread = threading.Thread(target=site.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield site
    site.server.shutdown()
    thread.join()
    site.server.server_close()


def offer(site: Site, contents: dict[str, bytes]) -> None:
    site.pages = {f"/{name}": content for name, content in contents.items()}


def left_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


def test_the_digest_of_a_file_is_its_sha256(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(CONTENTS["one.bin"])
    assert sha256_of(tmp_path / "file") == CHECKSUMS["one.bin"]


def test_the_digest_of_a_data_set_depends_on_names_and_checksums_but_not_on_their_order() -> None:
    digest = digest_of(CHECKSUMS)
    assert digest == digest_of(dict(reversed(CHECKSUMS.items())))
    assert len({digest, digest_of({"one.bin": CHECKSUMS["one.bin"]}), digest_of({"x": digest})}) == 3
    text = "".join(f"{CHECKSUMS[name]}  {name}\n" for name in ("one.bin", "two.bin"))
    assert digest == hashlib.sha256(text.encode()).hexdigest()


def test_files_are_downloaded_into_the_folder_and_verified(site: Site, tmp_path: Path) -> None:
    offer(site, CONTENTS)
    folder = tmp_path / "data" / "set"
    ensure_files(folder, CHECKSUMS, site.url)
    assert {name: (folder / name).read_bytes() for name in left_in(folder)} == CONTENTS
    assert sorted(path.name for path in folder.iterdir()) == sorted(CONTENTS)


def test_files_that_are_there_are_not_downloaded_again(site: Site, tmp_path: Path) -> None:
    (tmp_path / "two.bin").write_bytes(CONTENTS["two.bin"])
    offer(site, CONTENTS)
    ensure_files(tmp_path, CHECKSUMS, site.url)
    ensure_files(tmp_path, CHECKSUMS, site.url)
    assert site.requests == ["/one.bin"]


@pytest.mark.parametrize("wrong", [b"", CONTENTS["one.bin"][:1000], b"something else"])
def test_a_partial_or_wrong_file_is_replaced(site: Site, tmp_path: Path, wrong: bytes) -> None:
    (tmp_path / "one.bin").write_bytes(wrong)
    assert "one.bin" in missing_files(tmp_path, CHECKSUMS)
    offer(site, CONTENTS)
    ensure_files(tmp_path, CHECKSUMS, site.url)
    assert missing_files(tmp_path, CHECKSUMS) == []


def test_a_download_with_a_wrong_checksum_is_refused_and_leaves_nothing(site: Site, tmp_path: Path) -> None:
    offer(site, {"one.bin": b"not the published file"})
    with pytest.raises(DataError, match=r"one\.bin from http://\S+/one\.bin has the SHA-256 \w{12}…, not"):
        ensure_files(tmp_path, CHECKSUMS, site.url)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("manner", ["cut short", "broken chunks"])
def test_an_interrupted_download_leaves_nothing(site: Site, tmp_path: Path, manner: str) -> None:
    offer(site, CONTENTS)
    site.manner = manner
    with pytest.raises(DataError, match=r"one\.bin"):
        ensure_files(tmp_path, CHECKSUMS, site.url)
    assert list(tmp_path.iterdir()) == []
    site.manner = "whole"
    ensure_files(tmp_path, CHECKSUMS, site.url)
    assert missing_files(tmp_path, CHECKSUMS) == []


@pytest.mark.parametrize("ensure", [ensure_files, ensure_archive])
def test_without_data_and_network_one_line_says_what_is_missing(
    tmp_path: Path, ensure: Callable[..., None]
) -> None:
    url = "http://127.0.0.1:1"  # nobody listens there
    with pytest.raises(DataError) as caught:
        ensure(tmp_path / "set", CHECKSUMS, url)
    message = str(caught.value)
    assert f"{tmp_path / 'set' / 'one.bin'} is not there" in message
    assert "--data-dir" in message
    assert f"could not be downloaded from {url}" in message
    assert "Connection refused" in message
    assert "\n" not in message
    assert left_in(tmp_path) == set()


def test_a_file_with_a_wrong_checksum_is_not_called_absent(tmp_path: Path) -> None:
    (tmp_path / "one.bin").write_bytes(b"half")
    with pytest.raises(DataError, match=r"one\.bin is not the published file"):
        ensure_files(tmp_path, CHECKSUMS, "http://127.0.0.1:1")
    assert (tmp_path / "one.bin").read_bytes() == b"half"


def test_a_page_that_does_not_exist_is_named(site: Site, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"/one\.bin: Not Found"):
        ensure_files(tmp_path, CHECKSUMS, site.url)


@pytest.mark.parametrize("ensure", [ensure_files, ensure_archive])
def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path, ensure: Callable[..., None]) -> None:
    (tmp_path / "data").write_bytes(b"a file where a directory should be")
    with pytest.raises(DataError, match="data/set cannot be written to"):
        ensure(tmp_path / "data" / "set", CHECKSUMS, "http://127.0.0.1:1")


def entry(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> tuple:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(content)
    return info, content


def archive_of(*entries: tuple, mode: str = "w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:  # type: ignore[call-overload]
        for info, content in entries:
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def fetch(site: Site, folder: Path, archive: bytes) -> None:
    site.pages = {"/archive.tar.gz": archive}
    ensure_archive(folder, SOUND_CHECKSUMS, f"{site.url}/archive.tar.gz")


def whole(prefix: str = "top-26eb9aa") -> list[tuple]:
    return [entry(f"{prefix}/{name}", content) for name, content in SOUNDS.items()]


def test_members_are_taken_by_their_path_below_the_top_folder(site: Site, tmp_path: Path) -> None:
    fetch(site, tmp_path / "fsdd", archive_of(entry("top/README.md", b"no"), *whole()))
    assert left_in(tmp_path) == {f"fsdd/{name}" for name in SOUNDS}
    assert missing_files(tmp_path / "fsdd", SOUND_CHECKSUMS) == []
    assert [path.name for path in (tmp_path / "fsdd").iterdir()] == ["recordings"]


def test_a_whole_folder_needs_no_archive(site: Site, tmp_path: Path) -> None:
    fetch(site, tmp_path, archive_of(*whole()))
    ensure_archive(tmp_path, SOUND_CHECKSUMS, "http://127.0.0.1:1")
    assert len(site.requests) == 1


def test_only_what_is_missing_or_wrong_is_taken_from_the_archive(site: Site, tmp_path: Path) -> None:
    fetch(site, tmp_path, archive_of(*whole()))
    (tmp_path / "recordings/a.wav").write_bytes(b"damaged")
    before = (tmp_path / "recordings/b.wav").stat().st_mtime_ns
    fetch(site, tmp_path, archive_of(*whole()))
    assert missing_files(tmp_path, SOUND_CHECKSUMS) == []
    assert (tmp_path / "recordings/b.wav").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "hostile",
    [
        entry("top/../../escaped.txt", b"!"),
        entry("../escaped.txt", b"!"),
        entry("/tmp/octet-escaped.txt", b"!"),
        entry("top/recordings/../../escaped.txt", b"!"),
        entry("top/recordings", kind=tarfile.SYMTYPE, link="../outside"),
        entry("top/recordings", kind=tarfile.SYMTYPE, link="/tmp"),
        entry("top/fifo", kind=tarfile.FIFOTYPE),
    ],
    ids=lambda item: item[0].name,
)
def test_hostile_members_never_land_anywhere(site: Site, tmp_path: Path, hostile: tuple) -> None:
    (tmp_path / "outside").mkdir()
    fetch(site, tmp_path / "data" / "fsdd", archive_of(hostile, *whole()))
    assert left_in(tmp_path) == {f"data/fsdd/{name}" for name in SOUNDS}
    assert not (tmp_path / "data/fsdd/recordings").is_symlink()
    assert not Path("/tmp/octet-escaped.txt").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize("target", ["/etc/passwd", "../../../../etc/passwd", "nowhere"])
def test_a_link_in_place_of_a_wanted_member_is_not_followed_out_of_the_archive(
    site: Site, tmp_path: Path, kind: bytes, target: str
) -> None:
    link = entry("top/recordings/a.wav", kind=kind, link=target)
    with pytest.raises(DataError, match=r"does not hold recordings/a\.wav"):
        fetch(site, tmp_path, archive_of(link, *whole()[1:]))
    assert "recordings/a.wav" not in left_in(tmp_path)


def test_a_member_with_another_content_is_refused_and_leaves_nothing(site: Site, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"recordings/a\.wav from http\S+ has the SHA-256"):
        fetch(site, tmp_path, archive_of(entry("top/recordings/a.wav", b"forged"), *whole()[1:]))
    assert left_in(tmp_path) == set()


def test_a_missing_member_is_named(site: Site, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"does not hold recordings/b\.wav \(1 files are missing\)"):
        fetch(site, tmp_path, archive_of(*whole()[:1]))


@pytest.mark.parametrize("damage", ["half", "noise", "middle", "empty"])
def test_a_damaged_archive_is_refused(site: Site, tmp_path: Path, damage: str) -> None:
    letters = bytes(b % 16 for b in os.urandom(50_000))
    content = archive_of(*[entry(f"top/{name}", letters) for name in SOUNDS])
    damaged = {
        "half": content[: len(content) // 2],
        "noise": os.urandom(1000),
        "middle": content[:2000] + b"\xff" * 1000 + content[3000:],
        "empty": b"",
    }[damage]
    with pytest.raises(DataError, match=r"http://\S+/archive\.tar\.gz"):
        fetch(site, tmp_path, damaged)
    assert left_in(tmp_path) == set()
    fetch(site, tmp_path, archive_of(*whole()))
    assert missing_files(tmp_path, SOUND_CHECKSUMS) == []
