"""The store: what is kept, what gives way, and that no kill, no second process and no full disk harms it."""

from __future__ import annotations

import signal
import sqlite3
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from service.errors import ReviewStoreError, UnknownItemError
from service.review.items import unpack
from service.review.store import Bounds, Store, open_store
from tests.conftest import ROOT
from tests.service.review.kept import SHA, WIDE, a_row, new

MANIFESTS = {SHA: '{"a": "manifest"}'}


def ids(store: Store, **options: object) -> list[str]:
    return [item.id for item in store.page("tiny", **options)]  # type: ignore[arg-type]


def test_what_is_stored_comes_back_as_it_was(store: Store) -> None:
    added = new(1, confidence=None, novelty_p_value=None, reasons=("ood", "below_bound"))
    assert store.add([added], MANIFESTS, WIDE) == ["stored"]
    assert store.page() == [added.item]
    assert store.get(added.item.id) == store.find(added.item.id[:6]) == added.item
    row = unpack(store.payload(added.item.id))
    assert (row["pixels"] == a_row(1)["pixels"]).all()
    assert store.manifest(SHA) == MANIFESTS[SHA]


def test_the_same_input_is_stored_once(store: Store) -> None:
    assert store.add([new(1), new(2)], MANIFESTS, WIDE) == ["stored", "stored"]
    assert store.add([new(2), new(3)], MANIFESTS, WIDE) == ["known", "stored"]
    assert store.counts("tiny") == (3, 0)
    assert store.known([new(1).item.id, "f" * 32]) == {new(1).item.id}


def test_lists_are_in_order_and_in_pages(store: Store) -> None:
    sureness = {5: 0.5, 1: 0.1, 9: 0.9, 3: 0.3}
    added = {seed: new(seed, sureness=each, confidence=1 - each) for seed, each in sureness.items()}
    store.add(list(added.values()), MANIFESTS, WIDE)
    by_sureness = [added[seed].item.id for seed in (1, 3, 5, 9)]
    assert ids(store) == by_sureness
    assert ids(store, order="confidence") == by_sureness[::-1]
    assert ids(store, order="newest") == [added[seed].item.id for seed in (3, 9, 1, 5)]
    assert ids(store, limit=2, offset=1) == by_sureness[1:3]
    store.label(by_sureness[2], "b")
    assert ids(store, labelled=True) == [by_sureness[2]]
    assert ids(store, labelled=False) == by_sureness[:2] + by_sureness[3:]
    assert store.page("other") == []


def test_a_label_is_given_changed_and_taken_away(store: Store) -> None:
    added = new(1)
    item = added.item
    store.add([added], MANIFESTS, WIDE)
    store.label(item.id, "b")
    labelled = store.get(item.id)
    assert labelled.label == "b"
    assert labelled.labelled_s == pytest.approx(time.time(), abs=30)
    assert store.counts() == (1, 1)
    store.note_export([labelled])
    assert store.get(item.id).exported_s is not None
    store.label(item.id, "c")
    assert store.get(item.id).exported_s is None
    store.note_export([labelled])  # what was exported is not the label of now
    assert store.get(item.id).exported_s is None
    store.label(item.id, None)
    assert store.get(item.id) == item


def test_what_is_not_there_is_said_so(store: Store) -> None:
    store.add([new(1), new(2)], MANIFESTS, WIDE)
    unknown = "0" * 32
    for ask in (store.get, store.payload, store.delete, lambda item_id: store.label(item_id, "a")):
        with pytest.raises(UnknownItemError, match="holds no input"):
            ask(unknown)
    with pytest.raises(UnknownItemError, match="no input"):
        store.get(new(1).item.id, "other")
    with pytest.raises(UnknownItemError, match="several inputs"):
        store.find("")
    with pytest.raises(UnknownItemError, match="no input"):
        store.find("xyz")
    with pytest.raises(ReviewStoreError, match="holds no manifest bbbb"):
        store.manifest("b" * 64)


def test_deleted_is_deleted(store: Store) -> None:
    store.add([new(1), new(2)], MANIFESTS, WIDE)
    store.delete(new(1).item.id)
    assert ids(store) == [new(2).item.id]
    assert store.add([new(1)], MANIFESTS, WIDE) == ["stored"]


def test_the_surest_gives_way_and_of_equal_ones_the_oldest(store: Store) -> None:
    bounds = Bounds(max_items=3, max_bytes=10**9, max_age_s=10**9)
    first = [new(1, sureness=0.3), new(2, sureness=0.9), new(3, sureness=0.6)]
    assert store.add(first, MANIFESTS, bounds) == ["stored"] * 3
    now_s = time.time()
    assert store.add([new(4, sureness=0.6, created_s=now_s + 1)], MANIFESTS, bounds) == ["stored"]
    assert set(ids(store)) == {new(seed).item.id for seed in (1, 3, 4)}
    assert store.add([new(5, sureness=0.6, created_s=now_s + 2)], MANIFESTS, bounds) == ["stored"]
    assert set(ids(store)) == {new(seed).item.id for seed in (1, 4, 5)}
    assert store.add([new(6, sureness=0.7)], MANIFESTS, bounds) == ["full"]
    assert store.add([new(7, model="other")], MANIFESTS, bounds) == ["stored"]  # the bound is of each model
    assert store.counts() == (4, 0)


def test_labelled_inputs_stay_until_they_are_exported(store: Store) -> None:
    bounds = Bounds(max_items=2, max_bytes=10**9, max_age_s=100)
    labelled = [new(seed, sureness=0.9, created_s=time.time() - 50) for seed in (1, 2)]
    store.add(labelled, MANIFESTS, bounds)
    for each in labelled:
        store.label(each.item.id, "b")
    assert store.add([new(3, sureness=0.1)], MANIFESTS, bounds) == ["full"]
    store.sweep(Bounds(2, 10**9, max_age_s=10))
    assert store.counts() == (2, 2)
    store.note_export([store.get(labelled[0].item.id)])
    assert store.add([new(3, sureness=0.1)], MANIFESTS, bounds) == ["stored"]
    assert set(ids(store)) == {labelled[1].item.id, new(3).item.id}


def test_what_is_too_old_goes(store: Store) -> None:
    store.add([new(1, created_s=time.time() - 100), new(2)], MANIFESTS, WIDE)
    store.sweep(Bounds(1000, 10**9, max_age_s=50))
    assert ids(store) == [new(2).item.id]


def test_no_more_bytes_are_kept_than_are_allowed(store: Store) -> None:
    bounds = Bounds(max_items=1000, max_bytes=20_000, max_age_s=10**9)
    payload = b"x" * 1000
    many = [new(seed, payload=payload, sureness=seed / 100) for seed in range(30)]
    outcomes = [store.add([each], MANIFESTS, bounds)[0] for each in many]
    assert outcomes == ["stored"] * 20 + ["full"] * 10
    better = [new(100 + seed, payload=payload, sureness=0.001) for seed in range(5)]
    assert store.add(better, MANIFESTS, bounds) == ["stored"] * 5
    assert sum(item.size_bytes for item in store.page()) == 20_000
    assert store.add([new(200, payload=b"x" * 1251)], MANIFESTS, bounds) == ["too_large"]
    assert store.counts().total == 20


def test_a_smaller_bound_is_kept_at_the_next_sweep(store: Store) -> None:
    store.add([new(seed, sureness=seed / 1000) for seed in range(600)], MANIFESTS, WIDE)
    store.sweep(Bounds(max_items=7, max_bytes=10**9, max_age_s=10**9))
    assert [item.sureness for item in store.page()] == [seed / 1000 for seed in range(7)]


def test_all_of_a_change_is_stored_or_nothing(store: Store) -> None:
    broken = new(2)._replace(item=new(2, version=None).item)  # a column that must hold something
    with pytest.raises(ReviewStoreError, match="cannot be used"):
        store.add([new(1), broken], MANIFESTS, WIDE)
    assert store.counts() == (0, 0)
    assert store.add([new(1)], MANIFESTS, WIDE) == ["stored"]


def test_a_store_of_another_version_is_refused(url: str) -> None:
    with open_store(url, create=True) as store:
        store._database.execute("UPDATE review_schema SET version = 99")
    for create in (False, True):
        with (
            pytest.raises(ReviewStoreError, match="another version of this program"),
            open_store(url, create=create),
        ):
            pass


# Writes in transactions of two inputs whose names tell their pair, and says after each that it is done.
WRITER = """
import sys
from service.review.store import open_store
from tests.service.review.kept import SHA, WIDE, new

first = int(sys.argv[2])
with open_store(sys.argv[1], create=True) as store:
    for pair in range(first, first + int(sys.argv[3])):
        outcomes = store.add(
            [new(2 * pair, answer=str(pair)), new(2 * pair + 1, answer=str(pair))], {SHA: "{}"}, WIDE
        )
        print(pair, *outcomes, flush=True)
"""


def start_writer(url: str, first: int, pairs: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, url, str(first), str(pairs)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_a_kill_in_the_middle_of_writing_leaves_whole_transactions(url: str) -> None:
    writer = start_writer(url, 0, 10**6)
    assert writer.stdout is not None
    done = [writer.stdout.readline() for _ in range(30)]
    writer.send_signal(signal.SIGKILL)
    told, _ = writer.communicate()
    done += told.splitlines()
    with open_store(url, create=True) as store:
        items = store.page(limit=10**6)
        pairs = [item.answer for item in items]
        assert all(pairs.count(pair) == 2 for pair in set(pairs))
        assert {line.split()[0] for line in done if line.endswith(("stored", "stored\n"))} <= set(pairs)
        for item in items:
            assert unpack(store.payload(item.id))["pixels"].shape == (4, 4)
        assert store.add([new(10**7)], MANIFESTS, WIDE) == ["stored"]


def test_two_processes_write_to_one_store(url: str) -> None:
    """Both also make it at the same time, and both store some of the same inputs."""
    writers = [start_writer(url, first, 100) for first in (0, 50)]
    outcomes: list[str] = []
    for writer in writers:
        out, err = writer.communicate(timeout=120)
        assert writer.returncode == 0, err
        outcomes += [outcome for line in out.splitlines() for outcome in line.split()[1:]]
    with open_store(url) as store:
        assert store.counts() == (300, 0)
    assert (outcomes.count("stored"), outcomes.count("known")) == (300, 100)


def test_a_file_that_is_not_there_is_not_made_by_a_look(tmp_path: Path) -> None:
    with (
        pytest.raises(ReviewStoreError, match="there is no review store"),
        open_store(str(tmp_path / "x.db")),
    ):
        pass
    assert not list(tmp_path.iterdir())


def test_only_its_owner_can_read_the_file(tmp_path: Path) -> None:
    with open_store(f"sqlite:///{tmp_path}/review.db", create=True) as store:
        store.add([new(1)], MANIFESTS, WIDE)
        files = list(tmp_path.iterdir())
        assert len(files) == 3  # with the log that is written ahead
        assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with (
        pytest.raises(ReviewStoreError, match=r"review\.db cannot be used: No such file"),
        open_store(f"sqlite:///{tmp_path}/none/review.db", create=True),
    ):
        pass


def test_what_was_deleted_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "review.db"
    secret = b"what nobody else should see" * 100
    with open_store(f"sqlite:///{path}", create=True) as store:
        store.add([new(1, payload=secret), new(2)], MANIFESTS, WIDE)
        content = b"".join(each.read_bytes() for each in tmp_path.iterdir())
        assert b"nobody else" in content
        store.delete(new(1).item.id)
        content = b"".join(each.read_bytes() for each in tmp_path.iterdir())
        assert b"nobody else" not in content
        assert ids(store) == [new(2).item.id]


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "review.db"
    path.write_bytes(b"no database at all" * 1000)
    with pytest.raises(ReviewStoreError, match="not a database"), open_store(str(path), create=True):
        pass


FULL_DISK = """
import resource, signal, sys
from service.errors import ReviewStoreError
from service.review.store import open_store
from tests.service.review.kept import SHA, WIDE, new

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that writing fails as on a disk that is full
with open_store(sys.argv[1], create=True) as store:
    store.add([new(1)], {SHA: "{}"}, WIDE)
    store._database.forget()
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    try:
        store.add([new(2, payload=bytes(1_000_000))], {SHA: "{}"}, WIDE)
    except ReviewStoreError as error:
        print(error)
    print(store.counts().total)
"""


def test_a_disk_that_is_full_loses_nothing_of_what_was_stored(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/review.db"
    ran = subprocess.run(
        [sys.executable, "-c", FULL_DISK, url], cwd=ROOT, capture_output=True, text=True, check=True
    )
    message, count = ran.stdout.splitlines()
    assert "cannot be used: " in message
    assert count == "1"
    with open_store(url) as store:
        assert ids(store) == [new(1).item.id]
        assert store.add([new(3)], MANIFESTS, WIDE) == ["stored"]


def test_a_store_that_may_only_be_read_refuses_to_write(tmp_path: Path) -> None:
    path = tmp_path / "review.db"
    with open_store(f"sqlite:///{path}", create=True) as store:
        store.add([new(1)], MANIFESTS, WIDE)
        store._database.query("PRAGMA query_only = ON")  # root may write to any file
        with pytest.raises(ReviewStoreError, match="readonly database"):
            store.add([new(2)], MANIFESTS, WIDE)
        assert store.counts().total == 1
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
