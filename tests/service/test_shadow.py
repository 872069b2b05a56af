"""The shadow in one process: what it counts, what it drops, what it holds, and when fp32 takes over."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import threading
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from pydantic import ValidationError

import service.shadow
from bundle.confidence import softmax
from bundle.predictor import Predictor, load_predictor
from service.metrics import Metrics
from service.settings import Settings
from service.shadow import Shadow
from service.tap import Shown
from tests import tiny
from tests.conftest import running_app
from tests.service.calls import AUDIO, IMAGE, JSON, WAV, instances, pixels, sound, wav
from tests.service.fakes import until

pytestmark = pytest.mark.anyio

SHIFT = 3.0  # of the first label's logit, by the int8 graph


class Place:
    """A shadow, and what it has counted and told."""

    def __init__(self, **settings: Any) -> None:
        chosen: dict[str, Any] = {"shadow_share": 1, "shadow_rows_per_s": 1e6, **settings}
        self.metrics = Metrics()
        self.told: list[str] = []
        self.shadow = Shadow(Settings(**chosen), self.metrics, self._note)

    async def _note(self, predictor: Predictor, reason: str) -> None:
        self.told.append(reason)

    def count(self, name: str, **labels: str) -> float:
        labels = {"model": "tiny-image", "version": "1", **labels}
        return self.metrics.registry.get_sample_value(f"octet_shadow_{name}", labels) or 0

    async def compared(self, n: int) -> None:
        await until(lambda: self.count("compared_total") + self.count("dropped_total") >= n)


@pytest.fixture(autouse=True)
def no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else needs the processor here."""
    monkeypatch.setattr(service.shadow, "_DUTY", 1)


@pytest.fixture
def predictor(tmp_path: Path) -> Predictor:
    return load_predictor(tiny.make_image_bundle(tmp_path, int8_shift=SHIFT))


def run(predictor: Predictor, images: np.ndarray) -> Shown:
    rows = predictor.rows(list(images))
    answers = [each for i in range(0, len(rows), 8) for each in predictor.answer(rows[i : i + 8])]
    return Shown(predictor, rows, answers)


async def test_flips_and_changes_of_probability_are_counted_as_they_are(predictor: Predictor) -> None:
    place, images = Place(), pixels(60)
    fp32 = tiny.image_logits(images)
    int8 = fp32 + np.array([SHIFT, 0, 0], np.float32)
    answered = int8.argmax(axis=1)
    flips = np.bincount(answered[answered != fp32.argmax(axis=1)], minlength=3)
    assert flips.sum() > 5
    rows = np.arange(len(images))
    before, after = (softmax(each, tiny.TEMPERATURE)[rows, answered] for each in (int8, fp32))
    async with place.shadow.running():
        place.shadow.observe([run(predictor, images)])
        await place.compared(60)
    assert place.count("compared_total") == 60
    for label, n in zip(tiny.LABELS, flips, strict=True):
        assert place.count("disagreements_total", label=label) == n
    assert place.count("abs_dp_sum") == pytest.approx(np.abs(before - after).sum(), rel=1e-4)
    assert place.count("abs_dp_count") == 60


async def test_a_share_of_the_rows_is_compared(predictor: Predictor) -> None:
    place, shown = Place(shadow_share=0.1), run(predictor, pixels(8))
    async with place.shadow.running():
        for _ in range(500):
            place.shadow.observe([shown])
            await asyncio.sleep(0)
            await until(lambda: place.shadow._rows_in == place.shadow._rows_out)
    assert 300 < place.count("compared_total") < 500  # of 4000
    assert place.count("dropped_total") == 0


async def test_no_more_rows_are_taken_than_the_bound_allows(predictor: Predictor) -> None:
    place, shown = Place(shadow_rows_per_s=5), run(predictor, pixels(8))
    async with place.shadow.running():
        for _ in range(4):
            place.shadow.observe([shown])
        await place.compared(32)
    assert place.count("compared_total") in (5, 6)
    assert place.count("compared_total") + place.count("dropped_total") == 32


@pytest.mark.parametrize("most", [{"_MOST_ROWS": 10}, {"_MOST_BYTES": 10 * 16}])
async def test_what_does_not_fit_the_queue_is_dropped_and_nothing_waits(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch, most: dict[str, int]
) -> None:
    for name, value in most.items():
        monkeypatch.setattr(service.shadow, name, value)
    gate, begin = threading.Event(), Shadow._begin
    monkeypatch.setattr(Shadow, "_begin", lambda self, one: (gate.wait(), begin(self, one))[1])
    place, shown = Place(), run(predictor, pixels(8))
    async with place.shadow.running():
        for _ in range(4):
            place.shadow.observe([shown])
        assert place.count("dropped_total") == 22  # ten wait, or are in work
        gate.set()
        await place.compared(32)
        assert place.count("compared_total") == 10
        await until(lambda: place.shadow._rows_in == place.shadow._rows_out)
        place.shadow.observe([shown])
        await place.compared(40)
        assert place.count("compared_total") == 18


async def test_what_waits_keeps_nothing_of_its_request(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, begin = threading.Event(), Shadow._begin
    monkeypatch.setattr(Shadow, "_begin", lambda self, one: (gate.wait(), begin(self, one))[1])
    place, body = Place(), pixels(8)
    held = weakref.ref(body)
    shown = run(predictor, body)
    async with place.shadow.running():
        place.shadow.observe([shown])
        del shown, body
        gc.collect()
        assert held() is None
        gate.set()
        await place.compared(8)


async def test_a_version_that_goes_takes_its_fp32_graph_along(predictor: Predictor) -> None:
    place, other = Place(), load_predictor(predictor.bundle.directory)
    async with place.shadow.running():
        for each in (predictor, other):
            place.shadow.observe([run(each, pixels(2))])
        await until(lambda: place.shadow._rows_out == 4)
        assert len(place.shadow._comparisons) == 2
        reference = place.shadow._comparisons[id(other)].reference
        assert reference is not None
        session = weakref.ref(reference.session)
        del each, other, reference
        gc.collect()
        assert session() is None
        assert list(place.shadow._comparisons) == [id(predictor)]


async def test_fp32_and_what_has_no_labels_is_not_compared(tmp_path: Path, predictor: Predictor) -> None:
    place = Place()
    fp32 = load_predictor(predictor.bundle.directory, precision="fp32")
    async with place.shadow.running():
        place.shadow.observe([run(fp32, pixels(4))])
        assert place.shadow._thread is None
    assert place.count("dropped_total") == 0


async def test_a_graph_that_cannot_be_loaded_is_said_once_and_serving_goes_on(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(service.shadow, "create_predictor", refuse)
    place = Place()
    with caplog.at_level(logging.ERROR):
        async with place.shadow.running():
            place.shadow.observe([run(predictor, pixels(8))])
            await place.compared(8)
    assert place.count("dropped_total") == 8
    assert [each.message for each in caplog.records] == [
        f"{predictor.bundle.directory}: nothing is compared with its fp32 graph: no room"
    ]


async def test_a_row_that_fails_concerns_no_other(
    predictor: Predictor, caplog: pytest.LogCaptureFixture
) -> None:
    place, shown = Place(), run(predictor, pixels(3))
    shown.rows[1]["pixels"] = np.zeros((5, 5), np.uint8)
    with caplog.at_level(logging.ERROR):
        async with place.shadow.running():
            place.shadow.observe([shown])
            await place.compared(3)
    assert (place.count("compared_total"), place.count("dropped_total")) == (2, 1)
    assert "could not be run on the fp32 graph" in caplog.text


async def test_the_thread_has_a_low_priority_and_ends_with_the_service(predictor: Predictor) -> None:
    place = Place()
    async with place.shadow.running():
        place.shadow.observe([run(predictor, pixels(1))])
        await place.compared(1)
        thread = place.shadow._thread
        assert thread is not None
        assert thread.native_id is not None
        usual = os.getpriority(os.PRIO_PROCESS, 0)
        expected = min(usual + service.shadow._NICENESS, 19)
        assert os.getpriority(os.PRIO_PROCESS, thread.native_id) == expected
    assert not thread.is_alive()


async def test_too_little_agreement_is_told_once(
    predictor: Predictor, caplog: pytest.LogCaptureFixture
) -> None:
    place = Place(shadow_min_agreement=0.99)
    async with place.shadow.running():
        with caplog.at_level(logging.WARNING):
            for i in range(80):
                place.shadow.observe([run(predictor, pixels(8, seed=i))])
                await place.compared(8 * (i + 1))
        await until(lambda: bool(place.told))
    assert len(place.told) == 1
    assert "rows that were compared, which is below 99.00%" in place.told[0]
    assert [each.message for each in caplog.records] == [f"tiny-image/1: {place.told[0]}; fp32 takes over"]


async def test_one_flip_in_many_is_not_too_little_agreement(tmp_path: Path) -> None:
    agrees = load_predictor(tiny.make_image_bundle(tmp_path, int8_shift=1e-4))
    place = Place(shadow_min_agreement=0.9999)
    async with place.shadow.running():
        for i in range(70):
            place.shadow.observe([run(agrees, pixels(8, seed=i))])
            await place.compared(8 * (i + 1))
        flipped = run(agrees, pixels(1))
        flipped.answers[0].run.outputs.arrays["logits"] = -flipped.answers[0].run.outputs.logits
        place.shadow.observe([flipped])
        await place.compared(561)
    assert sum(place.count("disagreements_total", label=label) for label in tiny.LABELS) == 1
    assert not place.told


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"shadow_min_agreement": 0.9}, "needs a shadow_share over 0"),
        ({"shadow_share": 1.1}, "less than or equal to 1"),
        ({"shadow_rows_per_s": 0}, "greater than 0"),
        ({"shadow_share": 1, "shadow_min_agreement": 1}, "less than 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Settings(**settings)


@asynccontextmanager
async def fallen_back(folder: Path, lane: bool) -> AsyncIterator[httpx.AsyncClient]:
    """The application with a model of which int8 was found to disagree."""
    tiny.make_image_bundle(folder, int8_shift=SHIFT)
    tiny.make_audio_bundle(folder)
    settings = {"shadow_share": 1, "shadow_rows_per_s": 1e6, "shadow_min_agreement": 0.9}
    async with running_app(folder, lane=lane, **settings) as client:
        for i in range(1000):
            answer = await client.post(IMAGE, content=instances(pixels(8, seed=i)), headers=JSON)
            assert answer.status_code == 200
            if (await description(client))["precision"] == "fp32":
                break
        yield client


async def description(client: httpx.AsyncClient) -> dict[str, Any]:
    return dict((await client.get("/v1/models/tiny-image")).json())


async def test_fp32_takes_over_until_the_model_is_loaded_anew(tmp_path: Path, lane: bool) -> None:
    async with fallen_back(tmp_path, lane) as client:
        assert "which is below 90.00%" in (await description(client))["fallback"]
        metrics = (await client.get("/metrics")).text
        assert 'octet_shadow_fallback{model="tiny-image",version="1"} 1.0' in metrics
        assert 'octet_model_fallback{model="tiny-image",version="1"} 1.0' in metrics
        assert 'octet_shadow_fallback{model="tiny-audio",version="1"} 0.0' in metrics
        images = pixels(20, seed=999)
        answer = await client.post(IMAGE, content=instances(images), headers=JSON)
        labels = [each["label"] for each in answer.json()["predictions"]]
        assert labels == [tiny.LABELS[i] for i in tiny.image_logits(images).argmax(axis=1)]
        heard = await client.post(AUDIO, content=wav(sound()), headers=WAV)
        assert heard.status_code == 200

        await client.app.state.control._lifecycle.follow()  # type: ignore[attr-defined]
        assert (await description(client))["precision"] == "fp32"
        assert (await client.post("/v2/repository/models/tiny-image/load")).status_code == 200
        assert (await description(client))["precision"] == "int8"
        assert (
            'octet_shadow_fallback{model="tiny-image",version="1"} 0.0' in (await client.get("/metrics")).text
        )


async def test_the_evidence_of_the_graph_that_runs_is_used(tmp_path: Path) -> None:
    from tests.calibrated import NAME, make_calibrated_bundle

    make_calibrated_bundle(tmp_path)
    async with running_app(tmp_path) as client:
        control = client.app.state.control  # type: ignore[attr-defined]
        registry = client.app.state.registry  # type: ignore[attr-defined]
        before = registry.get(NAME).predictor
        await control.fall_back(before, "so the test says")
        after = registry.get(NAME).predictor
        assert after.precision == "fp32"
        assert after.evidence is not None
        assert after.evidence.facts != before.evidence.facts
        body = instances(pixels(1))
        answer = await client.post(f"/v1/models/{NAME}:confidence", content=body, headers=JSON)
        assert answer.json()["bundle"]["precision"] == "fp32"
        assert answer.json()["calibration"]["status"] == "valid"
        await control.fall_back(before, "too late: it is not served any more")
        assert registry.get(NAME).predictor is after


async def test_an_fp32_graph_that_fails_its_self_test_does_not_take_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tiny.make_image_bundle(tmp_path, int8_shift=SHIFT, fp32_error=2.0)
    async with running_app(tmp_path) as client:
        registry = client.app.state.registry  # type: ignore[attr-defined]
        served = registry.get("tiny-image")
        with caplog.at_level(logging.ERROR):
            await client.app.state.control.fall_back(served.predictor, "why")  # type: ignore[attr-defined]
        assert registry.get("tiny-image") is served
    assert "tiny-image/1 stays as it is: fp32 cannot take over" in caplog.text
