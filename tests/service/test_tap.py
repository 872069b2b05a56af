from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from bundle.answer import Answer
from bundle.predictor import Predictor, load_predictor
from service.tap import Shown, Tap
from tests import tiny
from tests.service.fakes import LIMIT_S

pytestmark = pytest.mark.anyio


class Notes:
    def __init__(self) -> None:
        self.seen: list[Shown] = []
        self.calls = 0
        self.told = asyncio.Event()

    def observe(self, runs: Sequence[Shown]) -> None:
        self.calls += 1
        self.seen += runs
        self.told.set()


class Broken:
    def observe(self, runs: Sequence[Shown]) -> None:
        raise RuntimeError("out of order")


@pytest.fixture
def predictor(tmp_path: Path) -> Predictor:
    return load_predictor(tiny.make_image_bundle(tmp_path))


def run(predictor: Predictor, n: int) -> tuple[list[dict[str, np.ndarray]], list[Answer]]:
    rows = [{"pixels": np.full((4, 4), value, np.uint8)} for value in range(n)]
    return rows, predictor.answer(rows)


async def test_observers_see_runs_later_and_together(predictor: Predictor) -> None:
    tap, notes = Tap(), Notes()
    tap.add(notes)
    for n in (1, 3):
        tap.ran(predictor, *run(predictor, n))
    assert not notes.seen
    await asyncio.wait_for(notes.told.wait(), LIMIT_S)
    assert notes.calls == 1
    assert [len(each.rows) for each in notes.seen] == [1, 3]
    assert all(len(each.answers) == len(each.rows) for each in notes.seen)


async def test_an_observer_that_fails_harms_no_other(
    predictor: Predictor, caplog: pytest.LogCaptureFixture
) -> None:
    tap, notes = Tap(), Notes()
    tap.add(Broken())
    tap.add(notes)
    with caplog.at_level(logging.ERROR):
        tap.ran(predictor, *run(predictor, 2))
        await asyncio.wait_for(notes.told.wait(), LIMIT_S)
    assert "Broken failed to look at 1 runs" in caplog.text


async def test_what_nobody_looks_at_is_not_kept(predictor: Predictor) -> None:
    tap, notes = Tap(), Notes()
    tap.ran(predictor, *run(predictor, 1))
    tap.add(notes)
    tap.hand_on()
    assert not notes.calls


async def test_no_more_than_so_many_runs_wait(predictor: Predictor) -> None:
    tap, notes = Tap(), Notes()
    tap.add(notes)
    rows, answers = run(predictor, 1)
    for _ in range(3_000):
        tap.ran(predictor, rows, answers)
    tap.hand_on()
    assert 0 < len(notes.seen) < 3_000
