"""The file of the keys: what it may hold, and what becomes of the keys when it changes."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import pytest

import service.api_keys
from service.api_keys import ApiKeys, KeysFileError, read_api_keys, sent_key
from service.errors import RoleError, UnknownKeyError
from tests.service.fakes import until
from tests.service.keyed import KEYS, line, write_keys

pytestmark = pytest.mark.anyio

SECRET = "0123456789abcdef-in-the-clear"


def test_a_file_tells_roles_and_names_of_keys(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    digest = hashlib.sha256(b"two").hexdigest()
    path.write_text(
        f"# ours\n\n{line('one', 'predict,feedback', 'shop')}  admin\t{digest.upper()} # anna's\n"
    )
    one, two = read_api_keys(path).values()
    assert (one.name, one.roles) == ("shop", {"predict", "feedback"})
    assert (two.name, two.roles) == (f"sha256-{digest[:8]}", {"admin"})
    assert [one.allows(role) for role in ("predict", "feedback", "admin")] == [True, True, False]
    assert all(two.allows(role) for role in ("predict", "feedback", "admin"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (f"predict {SECRET}\n", "line 1 is not"),
        (f"# x\npredict {SECRET} shop\n", "line 2 is not"),
        (SECRET, "line 1 is not"),
        (f"{hashlib.sha256(b'a').hexdigest()} predict", "line 1 is not"),
        (line("a", "predict", "two words"), "line 1 is not"),
        (line("a", "predict", "a\x1b[31m"), "line 1 is not"),
        (line("a", "predict")[:50], "line 1 is not"),
        (line("a", "predict,"), "line 1 is not"),
        (line("a", "root"), "line 1 names a role other than predict, feedback, admin"),
        (line("a", "predict") + line("a", "admin"), "line 2 has the key of a line before"),
        ("# nobody\n", "it holds 0 keys"),
        ("".join(line(str(i), "predict") for i in range(1001)), "it holds 1001 keys"),
        (b"\xff\xfe", "it is not UTF-8"),
    ],
)
def test_what_cannot_be_used_is_told_in_one_line_without_what_stands_there(
    tmp_path: Path, content: str | bytes, words: str
) -> None:
    path = tmp_path / "keys"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(KeysFileError, match=words) as caught:
        read_api_keys(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert SECRET not in message
    assert "\n" not in message


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(KeysFileError, match="keys: it cannot be read"):
        read_api_keys(tmp_path / "keys")
    with pytest.raises(KeysFileError, match="it cannot be read"):
        read_api_keys(tmp_path)


@pytest.mark.parametrize(
    ("authorization", "api_key", "sent"),
    [
        (None, None, ""),
        ("Bearer abc", None, "abc"),
        ("bearer   abc ", None, "abc"),
        ("Bearer", None, ""),
        ("Bearerabc", None, ""),
        ("abc", None, ""),
        ("Basic abc", None, ""),
        ("Basic abc", "def", "def"),
        ("Bearer abc", "def", "def"),
        ("Bearer abc", "", "abc"),
        (None, " def ", "def"),
    ],
)
def test_a_key_is_sent_in_either_header(authorization: str | None, api_key: str | None, sent: str) -> None:
    assert sent_key(authorization, api_key) == sent


async def test_a_key_is_known_by_itself_alone_and_allows_what_its_roles_do(tmp_path: Path) -> None:
    keys = ApiKeys(write_keys(tmp_path / "keys"))
    assert keys.required
    async with keys.watching():
        holder = keys.identify(KEYS["predict"])
        assert holder.name == "predict-holder"
        holder.require("predict")
        keys.identify(KEYS["admin"]).require("feedback")
        with pytest.raises(RoleError, match="the role 'admin', which predict-holder has not"):
            holder.require("admin")
        digest = hashlib.sha256(KEYS["predict"].encode()).hexdigest()
        for wrong in ("x", digest, KEYS["predict"] + "x", KEYS["predict"][:-1], "é", "\udcff"):
            with pytest.raises(UnknownKeyError, match="the API key is not known"):
                keys.identify(wrong)
        with pytest.raises(UnknownKeyError, match="this needs an API key"):
            keys.identify("")


async def test_without_a_file_none_is_needed() -> None:
    keys = ApiKeys(None)
    async with keys.watching():
        assert not keys.required


async def test_a_change_of_the_file_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service.api_keys, "_LOOK_S", 0.01)
    path = write_keys(tmp_path / "keys", "predict")
    keys, told = ApiKeys(path), []
    keys.on_change.append(lambda: told.append(1))
    async with keys.watching():
        assert keys.find(KEYS["admin"]) is None
        write_keys(path, "admin")
        await until(lambda: keys.find(KEYS["admin"]) is not None)
        assert keys.find(KEYS["predict"]) is None
        assert len(told) == 2


async def test_a_link_that_is_turned_elsewhere_is_seen(tmp_path: Path) -> None:
    """As Kubernetes does it with what it mounts."""
    for role in ("predict", "admin"):
        (tmp_path / role).mkdir()
        write_keys(tmp_path / role / "keys", role)
    (tmp_path / "data").symlink_to("predict")
    keys = ApiKeys(tmp_path / "data" / "keys")
    await keys.look()
    assert keys.find(KEYS["predict"]) is not None
    (tmp_path / "fresh").symlink_to("admin")
    (tmp_path / "fresh").rename(tmp_path / "data")
    await keys.look()
    assert keys.find(KEYS["predict"]) is None
    assert keys.find(KEYS["admin"]) is not None


async def test_a_file_that_breaks_leaves_the_keys_as_they_were_and_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_keys(tmp_path / "keys")
    keys = ApiKeys(path)
    await keys.look()
    path.write_text(f"predict {SECRET}\n")
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            await keys.look()
        assert keys.find(KEYS["predict"]) is not None
        path.unlink()
        for _ in range(3):
            await keys.look()
        assert keys.find(KEYS["predict"]) is not None
        write_keys(path, "admin")
        await keys.look()
        assert keys.find(KEYS["predict"]) is None
    broken, missing, again = (each.message for each in caplog.records)
    assert "line 1 is not" in broken
    assert broken.endswith("; the API keys that were known stay: 3")
    assert "it cannot be read" in missing
    assert again == "API keys that are known: 1"
    assert SECRET not in caplog.text


async def test_a_process_that_finds_the_file_broken_at_its_start_lets_nobody_in(tmp_path: Path) -> None:
    keys = ApiKeys(tmp_path / "keys")
    async with keys.watching():
        with pytest.raises(UnknownKeyError):
            keys.identify(KEYS["admin"])
