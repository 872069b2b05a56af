"""One monitored version through its calls: what callers had judged is counted once, whichever way it came."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import numpy as np
import pytest

from bundle.judgement import Judged
from bundle.predictor import Predictor, load_predictor
from service.metrics import Metrics
from service.monitoring.keys import make_keys
from service.monitoring.monitor import Monitor
from service.monitoring.monitored import Monitored, set_sizes
from tests.calibrated import NAME, examples, make_calibrated_bundle
from tests.conftest import running_app
from tests.service.calls import OCTETS
from tests.service.fakes import until

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    make_calibrated_bundle(folder)
    return folder


@pytest.fixture(scope="module")
def predictor(models: Path) -> Predictor:
    return load_predictor(models / NAME / "1")


def open_monitored(predictor: Predictor) -> Monitored:
    monitored = Monitor(Metrics(), make_keys(b"k" * 32), 0, 3600).open(predictor)
    assert monitored is not None
    return monitored


def rows_of(monitored: Monitored) -> int:
    rows = monitored.report()["rows"]
    assert isinstance(rows, int)
    return rows


async def test_a_run_of_several_callers_is_counted_once(predictor: Predictor) -> None:
    monitored = open_monitored(predictor)
    answers = predictor.answer(predictor.rows(examples(50, 8).items))
    monitored.note(answers[:3])
    monitored.note(answers[3:])
    assert rows_of(monitored) == 8


async def test_what_is_noted_is_counted_by_itself_soon(predictor: Predictor) -> None:
    monitored = open_monitored(predictor)
    monitored.note(predictor.answer(predictor.rows(examples(50, 4).items)))
    assert monitored.windows is not None
    assert monitored.windows.rows == 0
    await until(lambda: monitored.windows is not None and monitored.windows.rows == 4)


async def test_a_call_that_ends_after_its_model_has_gone_is_not_counted(predictor: Predictor) -> None:
    monitored = open_monitored(predictor)
    monitored.close(replaced=False)
    monitored.note(predictor.answer(predictor.rows(examples(50, 4).items)))
    assert rows_of(monitored) == 0


def test_the_answer_is_in_every_set_that_is_counted(predictor: Predictor) -> None:
    p_values = np.array([[0.02, 0.01, 0.01], [0.5, 0.07, 0.3], [0.09, 0.2, 0.06]])
    rest = np.zeros(3)
    judged = Judged(np.array([0, 0, 1]), rest, p_values, rest, rest, rest, rest, rest)
    assert [sizes.tolist() for sizes in set_sizes(judged)] == [[1, 3, 3], [1, 2, 1]]


async def test_all_rows_of_a_large_request_are_counted_though_it_takes_many_runs(
    models: Path, lane: bool
) -> None:
    """Its first runs are over long before it is answered; no budget is needed for them."""
    body = np.stack(examples(51, 400).items).tobytes()
    async with running_app(models, lane=lane, monitor_rows_per_s=0) as client:
        monitored = client.app.state.registry.get(NAME).monitored  # type: ignore[attr-defined]

        async def ask(verb: str) -> httpx.Response:
            return await client.post(f"/v1/models/{NAME}:{verb}", content=body, headers=OCTETS)

        answers = await asyncio.gather(ask("confidence"), ask("predict"), ask("confidence"))
        assert [answer.status_code for answer in answers] == [200] * 3
        assert 800 <= rows_of(monitored) <= 816  # runs may hold rows of two of them
