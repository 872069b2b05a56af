"""Prediction ids, feedback and the monitor over HTTP, through the lane and the routes."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from service.monitoring.keys import make_keys
from service.monitoring.tokens import Minter, read_token
from service.monitoring.windows import SHORTEST_S
from tests import tiny
from tests.calibrated import NAME, examples, make_calibrated_bundle
from tests.conftest import running_app
from tests.service.calls import OCTETS, assert_problem
from tests.service.fakes import until

pytestmark = pytest.mark.anyio
CALL, FEEDBACK, MONITOR = (f"/v1/models/{NAME}{verb}" for verb in (":confidence", ":feedback", "/monitor"))
SECRET = "s" * 32


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    make_calibrated_bundle(folder)
    tiny.make_image_bundle(folder, name="partial")
    tiny.make_image_bundle(folder, name="missing", calibrated=False)
    return folder


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "feedback.key"
    path.write_text(SECRET)
    path.chmod(0o600)
    return path


@pytest.fixture
async def client(models: Path, key_file: Path, lane: bool) -> AsyncIterator[httpx.AsyncClient]:
    async with running_app(models, lane=lane, feedback_key_file=key_file) as client:
        yield client


def pixels(n: int = 8, contrast: float = 1.0) -> np.ndarray:
    found = np.stack(examples(40, n).items).astype(float)
    return (128 + (found - 128) * contrast).astype(np.uint8)


async def ask(
    client: httpx.AsyncClient, sent: np.ndarray, call: str = CALL, **parameters: Any
) -> dict[str, Any]:
    answer = await client.post(call, content=sent.tobytes(), headers=OCTETS, params=parameters)
    assert answer.status_code == 200, answer.text
    content: dict[str, Any] = answer.json()
    return content


async def test_each_row_has_an_id_that_tells_what_was_answered_whatever_policy_was_asked_for(
    client: httpx.AsyncClient,
) -> None:
    usual = await ask(client, pixels())
    loose = await ask(client, pixels(), alpha=0.5, target_risk=0.99, scope="label", abstain="withhold")
    keys = make_keys(SECRET.encode())
    ids = [each["prediction_id"] for each in usual["results"] + loose["results"]]
    assert len(set(ids)) == 16
    for result, token, other in zip(usual["results"], ids[:8], ids[8:], strict=True):
        claim = read_token(keys, token)
        assert (claim.model, claim.version, claim.answer) == (NAME, "1", result["index"])
        assert claim.confidence == pytest.approx(result["confidence"], abs=1e-6)
        assert claim.accepted == result["accepted"]
        assert claim.sets is not None
        over = {tiny.LABELS[i] for i in range(3) if claim.sets[0] >> i & 1}
        assert over | {result["label"]} == set(result["prediction_set"]["labels"])
        assert read_token(keys, other).sets == claim.sets
        assert read_token(keys, other).accepted == claim.accepted


async def test_models_with_a_temperature_alone_give_ids_and_others_none(client: httpx.AsyncClient) -> None:
    partial = await ask(client, pixels(1), "/v1/models/partial:confidence")
    (result,) = partial["results"]
    body = {"prediction_id": result["prediction_id"], "label": result["label"]}
    answer = await client.post("/v1/models/partial:feedback", json=body)
    assert answer.json()["counted"] == 1
    missing = await ask(client, pixels(1), "/v1/models/missing:confidence")
    assert "prediction_id" not in missing["results"][0]


async def test_feedback_is_counted_once_and_told(client: httpx.AsyncClient) -> None:
    results = (await ask(client, pixels(3)))["results"]
    first = {"prediction_id": results[0]["prediction_id"], "label": results[0]["label"]}
    answer = await client.post(FEEDBACK, json=first)
    assert answer.status_code == 200
    counted = {"outcome": "counted", "correct": True}
    assert answer.json() == {"model": NAME, "counted": 1, "refused": 0, "results": [counted]}
    assert_problem(await client.post(FEEDBACK, json=first), 409, "was told before")
    wrong = (results[1]["index"] + 1) % 3
    several = [first, {"prediction_id": results[1]["prediction_id"], "label": wrong}]
    several.append({"prediction_id": "forged", "label": 0})
    answer = await client.post(FEEDBACK, json={"feedback": several})
    assert answer.status_code == 200
    content = answer.json()
    assert (content["counted"], content["refused"]) == (1, 2)
    assert [each["outcome"] for each in content["results"]] == ["repeated", "counted", "forged"]
    assert content["results"][1]["correct"] is False
    (version,) = (await client.get(MONITOR)).json()["versions"]
    assert (version["feedback"]["n"], version["feedback"]["accuracy"]) == (2, 0.5)


async def test_feedback_that_nobody_can_count_is_refused(client: httpx.AsyncClient, models: Path) -> None:
    (result,) = (await ask(client, pixels(1)))["results"]
    good = {"prediction_id": result["prediction_id"], "label": 0}
    assert_problem(await client.post(FEEDBACK, json={**good, "prediction_id": "x" * 80}), 401, "not known")
    assert_problem(await client.post(FEEDBACK, json={**good, "label": "cat"}), 400, "has no label 'cat'")
    assert_problem(await client.post(FEEDBACK, json={**good, "label": 3}), 400, "has no label '3'")
    other = await client.post("/v1/models/partial:feedback", json=good)
    assert_problem(other, 400, f"is of the model '{NAME}'")
    assert_problem(await client.post("/v1/models/nothing:feedback", json=good), 404)
    gone = Minter(make_keys(SECRET.encode()), NAME, "9", "00" * 32, 3).begin()(0, 0, 0.5, None, None)
    assert_problem(
        await client.post(FEEDBACK, json={**good, "prediction_id": gone}), 410, "not served any more"
    )
    page = await client.post(FEEDBACK, json=good, headers={"origin": "https://elsewhere.example"})
    assert_problem(page, 400, "a page of")
    assert (await client.post(FEEDBACK, json=good)).status_code == 200


async def test_an_id_expires(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    (result,) = (await ask(client, pixels(1)))["results"]
    much_later_s = time.time() + 30 * 24 * 3600 + 2
    monkeypatch.setattr(time, "time", lambda: much_later_s)
    answer = await client.post(FEEDBACK, json={"prediction_id": result["prediction_id"], "label": 0})
    assert_problem(answer, 410, "older than 2592000 s")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[]", "must be an object with prediction_id and label"),
        (b"null", "must be an object"),
        (b"{}", "prediction_id: Field required"),
        (b'{"prediction_id": 1, "label": 0}', "prediction_id: Input should be a valid string"),
        (
            b'{"prediction_id": "a", "label": true}',
            "label: must be the name of a label, as text, or its index",
        ),
        (b'{"prediction_id": "a", "label": 1.5}', "label: must be the name of a label"),
        (b'{"prediction_id": "a", "label": 0, "more": 1}', "more: Extra inputs are not permitted"),
        (b'{"feedback": []}', "feedback: List should have at least 1 item"),
        (b'{"feedback": [{"prediction_id": "a"}]}', "feedback.0.label: Field required"),
        (b'{"feedback": {}}', "feedback: Input should be a valid list"),
        (b'{"feedback": [' + b",".join([b'{"prediction_id":"a","label":0}'] * 1_001) + b"]}", "at most 1000"),
    ],
)
async def test_a_body_that_is_no_feedback_is_refused_in_one_line(
    client: httpx.AsyncClient, body: bytes, words: str
) -> None:
    problem = assert_problem(await client.post(FEEDBACK, content=body), 400, words)
    assert "\n" not in problem["detail"]


async def test_a_body_that_is_too_large_is_refused(client: httpx.AsyncClient) -> None:
    assert_problem(await client.post(FEEDBACK, content=b" " * (2 << 20) + b" "), 413)


async def test_strange_inputs_make_answers_say_that_the_calibration_is_stale(
    client: httpx.AsyncClient,
) -> None:
    """And two windows of usual ones take that back."""
    monitor = client.app.state.registry.resources.monitor  # type: ignore[attr-defined]
    now_s = monitor.clock()
    monitor.clock = lambda: now_s

    async def fill(contrast: float) -> None:
        """Fill a window with real requests, and let it end."""
        nonlocal now_s
        (before,) = (await client.get(MONITOR)).json()["versions"]
        now_s += SHORTEST_S
        await ask(client, pixels(520, contrast))
        monitored = client.app.state.registry.get(NAME).monitored  # type: ignore[attr-defined]
        await until(lambda: monitored.windows.rows == before["rows"] + 520)

    async def state() -> tuple[str, set[str]]:
        content = await ask(client, pixels(4))
        return content["calibration"]["status"], {
            text for each in content["results"] for text in each["advice"]
        }

    status, advice = await state()
    assert (status, "stale_calibration" in advice) == ("valid", False)
    await fill(0.2)
    assert (await state())[0] == "valid"
    await fill(0.2)
    status, advice = await state()
    assert (status, "stale_calibration" in advice) == ("stale", True)
    (version,) = (await client.get(MONITOR)).json()["versions"]
    assert version["stale_processes"] == version["processes"] == 1
    assert any(each["alarm"] for each in version["window"]["tests"])
    fresh = (await ask(client, pixels(4)))["results"]
    assert all(each["accepted"] == (not each["reasons"]) for each in fresh)  # the rule itself has not changed
    await fill(1.0)
    assert (await state())[0] == "stale"
    await fill(1.0)
    assert (await state())[0] == "valid"


async def test_what_runs_without_being_asked_how_sure_it_is_is_monitored_too(
    client: httpx.AsyncClient,
) -> None:
    await client.post(f"/v1/models/{NAME}:predict", content=pixels(16).tobytes(), headers=OCTETS)
    monitored = client.app.state.registry.get(NAME).monitored  # type: ignore[attr-defined]
    await until(lambda: monitored.windows.rows == 16)
    text = (await client.get("/metrics")).text
    assert f'octet_confidence_count{{model="{NAME}",version="1"}} 16.0' in text


async def test_the_monitor_of_a_model_that_is_not_monitored_says_so(client: httpx.AsyncClient) -> None:
    assert (await client.get("/v1/models/missing/monitor")).json() == {"model": "missing", "versions": []}
    (partial,) = (await client.get("/v1/models/partial/monitor")).json()["versions"]
    assert (partial["rows"], partial["window"], partial["feedback"]) == (0, None, None)
    assert_problem(await client.get("/v1/models/nothing/monitor"), 404)
