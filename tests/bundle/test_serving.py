from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle.errors import ServingError
from bundle.serving import (
    SERVING_FILE,
    Latest,
    Serving,
    VersionPolicy,
    parse_policy,
    parse_serving,
    read_serving,
    write_serving,
)

VERSIONS = st.integers(1, 12)
POLICIES: st.SearchStrategy[Any] = st.one_of(
    st.just("all"),
    VERSIONS.map(lambda n: Latest(latest=n)),
    st.lists(VERSIONS, min_size=1, max_size=4).map(tuple),
)
ALIASES = st.dictionaries(st.sampled_from(["stable", "canary", "next-1"]), VERSIONS)


@given(policy=st.none() | POLICIES, aliases=ALIASES, weight=st.floats(0, 1))
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, policy: Any, aliases: dict[str, int], weight: float
) -> None:
    serving = Serving(versions=policy, aliases=aliases, canary_weight=weight if "canary" in aliases else 0)
    repository = tmp_path_factory.mktemp("models")
    (repository / "m").mkdir()
    write_serving(repository, "m", serving)
    assert read_serving(repository, "m") == serving
    assert [path.name for path in (repository / "m").iterdir()] == [SERVING_FILE]


def test_without_a_file_everything_is_left_to_the_setting(tmp_path: Path) -> None:
    assert read_serving(tmp_path, "m") == Serving(versions=None, aliases={}, canary_weight=0)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"versions": "some"}', 'versions: must be "all", {"latest": n} or a list of versions'),
        ('{"versions": true}', 'versions: must be "all", {"latest": n} or a list of versions'),
        ('{"versions": {"latest": 0}}', "versions.latest: Input should be greater than 0"),
        ('{"versions": {"latest": true}}', "versions.latest: Input should be a valid integer"),
        ('{"versions": [1, "2"]}', "versions.1: Input should be a valid integer"),
        ('{"versions": [1.0]}', "versions.0: Input should be a valid integer"),
        ('{"versions": []}', "versions: "),
        ('{"aliases": {"A B": 1}}', "aliases.A B"),
        ('{"aliases": {"stable": "1"}}', "aliases.stable: Input should be a valid integer"),
        ('{"canary_weight": 1.1, "aliases": {"canary": 1}}', "canary_weight: "),
        ('{"canary_weight": NaN}', "canary_weight: "),
        ('{"canary_weight": 0.1}', "the document: canary_weight is set, but there is no alias 'canary'"),
        ('{"alias": {}}', "alias: there is no such field"),
        ("[]", "the document: "),
        ("{", "the document: Invalid JSON"),
        (b"\xff", "the document: Invalid JSON"),
    ],
)
def test_what_cannot_be_understood_is_refused_in_one_line(content: bytes | str, words: str) -> None:
    with pytest.raises(ServingError) as refused:
        parse_serving(content, "here")
    assert str(refused.value).startswith(f"here: {words}")
    assert "\n" not in str(refused.value)


def test_a_file_that_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m" / SERVING_FILE).mkdir(parents=True)
    with pytest.raises(ServingError, match=r"serving\.json: it cannot be read \(Is a directory\)"):
        read_serving(tmp_path, "m")


def test_what_the_disk_refuses_leaves_the_old_and_nothing_else(tmp_path: Path) -> None:
    with pytest.raises(ServingError, match=r"serving\.json: it cannot be written \(No such file"):
        write_serving(tmp_path, "m", Serving())
    (tmp_path / "m" / SERVING_FILE / "in the way").mkdir(parents=True)
    with pytest.raises(ServingError, match="it cannot be written"):
        write_serving(tmp_path, "m", Serving())
    assert [path.name for path in (tmp_path / "m").iterdir()] == [SERVING_FILE]


def test_a_reader_sees_one_whole_file_or_the_other(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    both = [Serving(aliases={f"a{i}": 1 for i in range(n)}) for n in (1, 400)]
    write_serving(tmp_path, "m", both[0])
    over = threading.Event()

    def write() -> None:
        for i in range(50):
            write_serving(tmp_path, "m", both[i % 2])
        over.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = 0
    while not over.is_set():
        assert read_serving(tmp_path, "m") in both
        seen += 1
    writer.join()
    assert seen > 0


def test_every_named_version_must_be_published() -> None:
    Serving(versions=(1, 3), aliases={"stable": 2}).check_published([1, 2, 3])
    with pytest.raises(ServingError, match=r"there is no version 4; there are: 1, 2, 3"):
        Serving(versions=(1, 4)).check_published([1, 2, 3])
    with pytest.raises(ServingError, match=r"there is no version 2; there are: none"):
        Serving(aliases={"stable": 2}).check_published([])


@given(
    published=st.sets(VERSIONS, min_size=1),
    broken=st.sets(VERSIONS),
    policy=POLICIES,
    is_default=st.booleans(),
    data=st.data(),
)
def test_the_picked_versions_are_those_of_the_policy_and_the_aliases(
    published: set[int], broken: set[int], policy: VersionPolicy, is_default: bool, data: st.DataObject
) -> None:
    aliases = data.draw(st.dictionaries(st.sampled_from(["stable", "b"]), st.sampled_from(sorted(published))))
    serving = Serving(versions=None if is_default else policy, aliases=aliases)
    asked: set[int] = set()

    def loads(version: int) -> bool:
        asked.add(version)
        return version not in broken

    picked = serving.pick(sorted(published), policy if is_default else "all", loads)
    whole = sorted(published - broken, reverse=True)
    match policy:
        case "all":
            expected = set(whole)
        case Latest(latest=n):
            expected = set(whole[:n])
        case _:
            expected = set(policy) - broken
    assert picked == sorted(expected | (set(aliases.values()) - broken))
    if isinstance(policy, Latest) and len(whole) >= policy.latest:
        assert all(version >= whole[policy.latest - 1] for version in asked - set(aliases.values()))


def test_the_setting_names_a_policy() -> None:
    assert parse_policy("all") == "all"
    assert parse_policy("latest:3") == Latest(latest=3)
    for wrong in ("", "latest", "latest:0", "latest:-1", "latest:1 ", "latest:١", "1,2"):
        with pytest.raises(ValueError, match="'all' or 'latest:N'"):
            parse_policy(wrong)


def test_the_file_is_one_that_people_can_read(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    write_serving(tmp_path, "m", Serving(versions=Latest(latest=2), aliases={"stable": 1}))
    text = (tmp_path / "m" / SERVING_FILE).read_text()
    assert json.loads(text) == {"versions": {"latest": 2}, "aliases": {"stable": 1}, "canary_weight": 0.0}
    assert text.count("\n") > 5
