from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from bundle.answer import Answer, Outputs, Run
from bundle.confidence import softmax
from bundle.conformal import p_values
from bundle.predictor import Predictor, load_predictor
from service.api.confidence import Policy, render_confidence
from tests import tiny
from tests.calibrated import NAME, examples, make_calibrated_bundle
from tests.conftest import running_app
from tests.service.calls import OCTETS, assert_problem

pytestmark = pytest.mark.anyio
CALL = f"/v1/models/{NAME}:confidence"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    make_calibrated_bundle(folder)
    tiny.make_image_bundle(folder, name="partial")
    tiny.make_image_bundle(folder, name="missing", calibrated=False)
    return folder


@pytest.fixture(scope="module")
def predictor(models: Path) -> Predictor:
    return load_predictor(models / NAME / "1")


@pytest.fixture(params=[True, False], ids=["lane", "routes"])
async def calibrated(models: Path, request: pytest.FixtureRequest) -> AsyncIterator[httpx.AsyncClient]:
    async with running_app(models, lane=request.param) as client:
        yield client


async def ask(client: httpx.AsyncClient, pixels: np.ndarray, **parameters: Any) -> dict[str, Any]:
    answer = await client.post(CALL, content=pixels.tobytes(), headers=OCTETS, params=parameters)
    assert answer.status_code == 200, answer.text
    content: dict[str, Any] = answer.json()
    return content


def new_pixels(n: int = 20) -> tuple[np.ndarray, np.ndarray]:
    found = examples(9, n)
    return np.stack(found.items), found.labels


async def test_an_answer_tells_the_evidence_behind_it(
    calibrated: httpx.AsyncClient, predictor: Predictor
) -> None:
    pixels, _ = new_pixels()
    content = await ask(calibrated, pixels)
    assert content["schema"] == "confidence/1"
    assert content["bundle"] == {"precision": "int8", "sha256": predictor.bundle.manifest_sha256}
    assert content["calibration"]["status"] == "valid"
    assert "800 items" in content["assumptions"][0]
    evidence = predictor.evidence
    assert evidence is not None
    probabilities = softmax(tiny.image_logits(pixels) + np.array([0.001, 0, 0]), predictor.temperature)
    for result, row in zip(content["results"], probabilities, strict=True):
        assert result["index"] == row.argmax()
        assert result["confidence"] == pytest.approx(row.max(), abs=1e-4)
        (observed,) = [each for each in evidence.facts.bins if each.low < result["confidence"] <= each.high]
        assert result["bin"]["n"] == observed.n
        assert result["bin"]["observed_accuracy"] == (observed.correct / observed.n if observed.n else None)
        expected = p_values(evidence.lac, 1 - row)
        for entry in result["top"]:
            assert entry["p_value"] == pytest.approx(expected[entry["index"]], abs=3 / 801)
        assert result["credibility"] == pytest.approx(expected.max(), abs=3 / 801)
        scores = result["ood"]["scores"]
        assert result["ood"]["p_value"] == min(
            1, 2 * min(scores["energy"]["p_value"], scores["mds_l2"]["p_value"])
        )
        assert result["ood"]["flag"] == (result["ood"]["p_value"] <= 0.05)


@pytest.mark.parametrize("alpha", [0.05, 0.2, 0.5])
async def test_a_prediction_set_holds_the_labels_over_alpha(
    calibrated: httpx.AsyncClient, alpha: float
) -> None:
    content = await ask(calibrated, new_pixels()[0], alpha=alpha, top_k=3)
    for result in content["results"]:
        found = result["prediction_set"]
        over = {entry["label"] for entry in result["top"] if entry["p_value"] > alpha}
        assert found["forced_top1"] == (result["label"] not in over)
        assert set(found["labels"]) == over | {result["label"]}
        assert (found["alpha"], found["size"]) == (alpha, len(found["labels"]))
        assert (found["scope"], found["n_calibration"], found["method"]) == ("marginal", 800, "lac")


async def test_sets_by_label_compare_each_label_with_its_own(
    calibrated: httpx.AsyncClient, predictor: Predictor
) -> None:
    """And where a label has too few of its own for an alpha, all are compared with all, and it is said."""
    evidence = predictor.evidence
    assert evidence is not None
    fewest = min(map(len, evidence.by_label))
    pixels, _ = new_pixels()
    probabilities = softmax(tiny.image_logits(pixels) + np.array([0.001, 0, 0]), predictor.temperature)
    content = await ask(calibrated, pixels, alpha=0.05, scope="label")
    for result, row in zip(content["results"], probabilities, strict=True):
        found = result["prediction_set"]
        assert (found["scope"], found["n_calibration"]) == ("label", fewest)
        for entry in result["top"]:
            own = evidence.by_label[entry["index"]]
            (expected,) = p_values(own, 1 - row[[entry["index"]]])
            assert entry["p_value"] == pytest.approx(expected, abs=3 / len(own))
        over = {entry["label"] for entry in result["top"] if entry["p_value"] > 0.05}
        assert set(found["labels"]) == over | {result["label"]}
        assert result["credibility"] == max(entry["p_value"] for entry in result["top"])
        assert result["advice"] == (["ambiguous_set"] if found["size"] > 1 else [])
    (result,) = (await ask(calibrated, pixels[:1], alpha=1 / (fewest + 2), scope="label"))["results"]
    assert (result["prediction_set"]["scope"], result["prediction_set"]["n_calibration"]) == ("marginal", 800)


async def test_every_label_is_covered_by_sets_by_label(models: Path) -> None:
    pixels, labels = new_pixels(1_000)
    async with running_app(models) as client:
        content = await ask(client, pixels, alpha=0.2, top_k=3, scope="label")
    hits = np.array(
        [
            next(entry["p_value"] for entry in result["top"] if entry["index"] == label) > 0.2
            for result, label in zip(content["results"], labels.tolist(), strict=True)
        ]
    )
    own = np.bincount(examples(3).labels, minlength=3)
    for label in range(3):
        deviation = (0.16 * (1 / own[label] + 1 / (labels == label).sum())) ** 0.5
        assert hits[labels == label].mean() == pytest.approx(0.8, abs=4 * deviation)


async def test_an_answer_tells_how_long_it_took(calibrated: httpx.AsyncClient) -> None:
    timing = (await ask(calibrated, new_pixels()[0]))["timing_us"]
    assert timing.keys() == {"inference", "confidence"}
    assert all(value > 0 for value in timing.values())


async def test_sets_cover_as_promised(models: Path) -> None:
    """Over HTTP, of new inputs; within four standard deviations of what 800 scores can promise."""
    pixels, labels = new_pixels(1_000)
    async with running_app(models) as client:
        content = await ask(client, pixels, alpha=0.2, top_k=3)
    hits = [
        next(entry["p_value"] for entry in result["top"] if entry["index"] == label) > 0.2
        for result, label in zip(content["results"], labels.tolist(), strict=True)
    ]
    assert np.mean(hits) == pytest.approx(0.8, abs=4 * (0.16 * (1 / 800 + 1 / 1_000)) ** 0.5)


async def test_an_answer_is_accepted_by_the_rule_that_its_threshold_was_learned_on(
    calibrated: httpx.AsyncClient, predictor: Predictor
) -> None:
    assert predictor.evidence is not None
    risk = predictor.evidence.facts.thresholds[0].target_risk
    content = await ask(calibrated, new_pixels(200)[0], target_risk=risk)
    threshold = content["results"][0]["policy"]["threshold"]
    for result in content["results"]:
        assert result["policy"]["target_risk"] == risk
        assert result["accepted"] == (result["confidence"] >= threshold and result["ood"]["p_value"] > 0.01)
        assert ("low_confidence" in result["reasons"]) == (result["confidence"] < threshold)
    assert {result["accepted"] for result in content["results"]} == {True, False}


async def test_labels_that_are_not_accepted_can_be_withheld(calibrated: httpx.AsyncClient) -> None:
    content = await ask(calibrated, new_pixels(200)[0], abstain="withhold")
    for result in content["results"]:
        assert (result["label"] is None) == (not result["accepted"])
        assert (result["top"] is None) == (not result["accepted"])
        assert result["confidence"] is not None


async def test_what_looks_like_nothing_seen_before_is_not_accepted(calibrated: httpx.AsyncClient) -> None:
    strange = np.zeros((1, 4, 4), np.uint8)
    strange[0, 0, :2] = 255
    (result,) = (await ask(calibrated, strange))["results"]
    assert result["ood"]["flag"]
    assert "ood" in result["reasons"]


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"alpha": 0}, "'alpha'"),
        ({"alpha": 1}, "'alpha'"),
        ({"alpha": "nan"}, "'alpha'"),
        ({"target_risk": 0}, "'target_risk'"),
        ({"target_risk": 1.5}, "'target_risk'"),
        ({"target_risk": 0.00001}, "infeasible for this model; the smallest feasible one is"),
        ({"abstain": "maybe"}, "'abstain'"),
    ],
)
async def test_what_cannot_be_promised_is_refused(
    calibrated: httpx.AsyncClient, parameters: dict[str, Any], words: str
) -> None:
    pixels, _ = new_pixels(1)
    answer = await calibrated.post(CALL, content=pixels.tobytes(), headers=OCTETS, params=parameters)
    assert_problem(answer, 400, words)


async def test_without_evidence_nothing_is_promised(calibrated: httpx.AsyncClient) -> None:
    pixels, _ = new_pixels(1)
    for name, status in (("partial", "partial"), ("missing", "missing")):
        call = f"/v1/models/{name}:confidence"
        content = (await calibrated.post(call, content=pixels.tobytes(), headers=OCTETS)).json()
        assert content["calibration"]["status"] == status
        (result,) = content["results"]
        assert (result["confidence"] is None) == (status == "missing")
        assert not {"bin", "prediction_set", "ood"} & set(result)
        assert (result["accepted"], result["reasons"]) == (False, ["no_calibration"])
        answer = await calibrated.post(
            call, content=pixels.tobytes(), headers=OCTETS, params={"abstain": "withhold"}
        )
        (withheld,) = answer.json()["results"]
        assert [withheld[name] for name in ("label", "index", "top")] == [None] * 3
        assert withheld["confidence"] == result["confidence"]
        assert "prediction_set" not in withheld
        answer = await calibrated.post(
            call, content=pixels.tobytes(), headers=OCTETS, params={"target_risk": 0.1}
        )
        assert_problem(answer, 400, "no evidence")


LOGITS = np.array([[1, 4, 2], [3, -1, 0]], np.float32)
POLICY = Policy(alpha=0.05, target_risk=None, withhold=False, top_k=1)


def answers(predictor: Predictor) -> list[Answer]:
    run = Run(Outputs({"logits": LOGITS}), predictor.temperature)
    return [Answer(run, i) for i in range(len(LOGITS))]


async def test_with_a_temperature_alone_the_confidence_is_calibrated(repository: Path) -> None:
    predictor = load_predictor(repository / "tiny-image" / "2")
    content = render_confidence(predictor, answers(predictor), POLICY)
    calibration = content["calibration"]
    assert (calibration["status"], calibration["method"]) == ("partial", "temperature_map")
    assert (calibration["temperature"], calibration["n"]) == (tiny.TEMPERATURE, 100)
    for result, raw, calibrated in zip(
        content["results"], softmax(LOGITS), softmax(LOGITS, tiny.TEMPERATURE), strict=True
    ):
        best = int(calibrated.argmax())
        entropy = -(calibrated * np.log2(calibrated)).sum()
        assert (result["label"], result["index"]) == (tiny.LABELS[best], best)
        assert result["confidence"] == pytest.approx(calibrated[best])
        assert result["confidence_raw"] == pytest.approx(raw[best])
        assert result["margin"] == pytest.approx(calibrated[best] - np.sort(calibrated)[-2])
        assert result["entropy_bits"] == pytest.approx(entropy)
        assert result["entropy_normalized"] == pytest.approx(entropy / np.log2(3))
        assert result["top"] == [
            {"label": result["label"], "index": best, "p": pytest.approx(calibrated[best])}
        ]


async def test_without_a_temperature_there_is_no_number_that_looks_like_a_confidence(tmp_path: Path) -> None:
    predictor = load_predictor(tiny.make_image_bundle(tmp_path, calibrated=False))
    content = render_confidence(predictor, answers(predictor), POLICY)
    assert set(content["calibration"].values()) == {"missing", None}
    assert [result["confidence"] for result in content["results"]] == [None, None]
    assert [result["top"][0]["p"] for result in content["results"]] == [None, None]
    assert content["results"][0]["confidence_raw"] == pytest.approx(softmax(LOGITS)[0, 1])
