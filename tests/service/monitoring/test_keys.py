from __future__ import annotations

import logging
import stat
from pathlib import Path

import pytest

from service.monitoring.keys import choose_keys, make_keys, read_keys, write_random_key

ONE, OTHER = "1" * 32, "2" * 32


def key_file(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "feedback.key"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_the_first_line_signs_and_both_are_taken(tmp_path: Path) -> None:
    keys = read_keys(key_file(tmp_path, f"{ONE}\n {OTHER} \n\n"))
    assert keys.current == make_keys(ONE.encode()).current
    assert keys.all == (keys.current, make_keys(OTHER.encode()).current)
    assert {len(each) for each in keys.all} == {32}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "one or two lines, a key each, not 0"),
        ("\n\n", "not 0"),
        (f"{ONE}\n{OTHER}\n{ONE}\n", "not 3"),
        ("short\n", "fewer than 32 characters"),
        (f"{ONE}\nshort\n", "fewer than 32 characters"),
    ],
)
def test_a_file_that_keeps_nothing_safe_is_refused_without_telling_what_is_in_it(
    tmp_path: Path, text: str, words: str
) -> None:
    with pytest.raises(OSError, match=words) as refused:
        read_keys(key_file(tmp_path, text))
    assert "short\n" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"none\.key cannot be read: No such file"):
        read_keys(tmp_path / "none.key")


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o400, False), (0o440, False), (0o604, True)])
def test_a_file_that_others_may_use_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, warned: bool
) -> None:
    read_keys(key_file(tmp_path, ONE, mode))
    assert ("every user may use the feedback key file" in caplog.text) == warned
    assert ONE not in caplog.text


def test_without_a_file_each_start_has_a_key_of_its_own_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert choose_keys(None).current != choose_keys(None).current
    assert "OCTET_FEEDBACK_KEY_FILE names a key that lasts" in caplog.text


def test_a_key_that_is_written_is_read_by_its_owner_alone(tmp_path: Path) -> None:
    paths = [tmp_path / "one", tmp_path / "other"]
    for path in paths:
        write_random_key(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_keys(paths[0]) == choose_keys(paths[0])
    assert read_keys(paths[0]) != read_keys(paths[1])
    with pytest.raises(FileExistsError):
        write_random_key(paths[0])
