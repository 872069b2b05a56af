"""The loop closed: train, serve, find what the model does not know, label it, export it, and train again."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from bundle.repository import read_bundle
from octet.cli import app
from service.review.store import open_store
from tests.conftest import LiveServer
from tests.service.live import eventually, samples
from tests.small import FIT, OPEN_GATES, WIDTHS, digit_splits
from training.__main__ import main
from training.config import Places
from training.data import mnist
from training.recipes.mnist_cnn import MnistCnnConfig, train

CONFIG = MnistCnnConfig(fit=FIT, gates=OPEN_GATES, widths=WIDTHS, max_batch_size=4)
# The same job by its flags.
FLAGS = [
    "mnist-cnn", "--fit.max-epochs", "1", "--fit.max-steps", "2", "--fit.batch-size", "8",
    "--fit.learning-rate", "1e-3", "--fit.overfit-steps", "0", "--fit.precision", "32-true",
    "--gates.max-latency-ratio", "1e6", "--gates.max-accuracy-loss", "1", "--gates.min-agreement", "0",
    "--widths", "[4,8,16]", "--max-batch-size", "4",
]  # fmt: skip
URL = "/v1/models/mnist-cnn/review"


@pytest.mark.filterwarnings("ignore:The number of training batches .* is smaller than the logging")
def test_what_a_model_does_not_know_is_what_the_next_one_learns(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    start_service: Callable[..., LiveServer],
    capsys: pytest.CaptureFixture[str],
) -> None:
    from typer.testing import CliRunner

    monkeypatch.setattr(mnist, "load_mnist", lambda _: digit_splits())
    models, runs, store = tmp_path / "models", tmp_path / "runs", f"sqlite:///{tmp_path}/review.db"
    first = train(CONFIG, Places(data_dir=tmp_path, models_dir=models, runs_dir=runs))

    # Two workers share the store. No answer of so poor a model is as sure as .999.
    server = start_service(
        "--models", str(models), "--workers", "2", "--review-url", store, "--review-max-confidence", "0.999",
        "--drain-delay-s", "0",
    )  # fmt: skip
    odd = np.random.default_rng(1).integers(0, 256, (12, 28, 28), dtype=np.uint8)
    with httpx.Client(base_url=server.url, timeout=60) as client:
        for pixels in odd:  # on connections of their own, so that both workers have some
            body = {"instances": [pixels.tolist()]}
            answer = httpx.post(f"{server.url}/v1/models/mnist-cnn:predict", json=body, timeout=60)
            assert answer.status_code == 200
        eventually(lambda: client.get(URL).json()["total"] == 12)
        items = client.get(URL).json()["items"]
        kept = {item["id"]: client.get(f"{URL}/{item['id']}").json()["inputs"]["pixels"] for item in items}
        assert {np.array(each["data"], np.uint8).tobytes() for each in kept.values()} == {
            each.tobytes() for each in odd
        }
        for number, item in enumerate(items[:10]):
            answer = client.put(f"{URL}/{item['id']}", json={"label": str(number)})
            assert answer.json()["label"] == str(number)
        assert client.delete(f"{URL}/{items[11]['id']}").status_code == 200
        over_http = client.get(f"{URL}:export").content
    stored = samples(server.url, "octet_review_stored_total")
    assert sum(stored.values()) == 12
    server.process.terminate()
    assert server.process.wait(30) == 0

    exported = CliRunner().invoke(
        app, ["review", "export", "mnist-cnn", str(tmp_path / "odd.npz"), "--store", store]
    )
    assert exported.exit_code == 0, exported.output
    assert (tmp_path / "odd.npz").read_bytes() == over_http
    with np.load(tmp_path / "odd.npz") as arrays:
        assert arrays["labels"].tolist() == list(range(10))
        places = [np.array(kept[item["id"]]["data"]) for item in items[:10]]
        np.testing.assert_array_equal(arrays["pixels"], np.stack(places))

    where = ["--models-dir", str(models), "--runs-dir", str(runs), "--data-dir", str(tmp_path)]
    assert main([*FLAGS, *where, "--review", str(tmp_path / "odd.npz")]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"published {models}/mnist-cnn/2"
    before, after = read_bundle(first), read_bundle(models / "mnist-cnn" / "2")
    assert before.manifest.provenance.reviewed is None
    reviewed = after.manifest.provenance.reviewed
    assert reviewed is not None
    assert reviewed.n == 10
    assert after.graph("fp32") != before.graph("fp32")
    assert after.manifest.provenance.config_sha256 != before.manifest.provenance.config_sha256
    assert len(list((runs / "mnist-cnn").iterdir())) == 2  # no run goes on from the other's checkpoint


def test_a_service_that_is_killed_leaves_a_store_that_can_be_read(
    tmp_path: Path, repository: Path, start_service: Callable[..., LiveServer]
) -> None:
    store = f"sqlite:///{tmp_path}/review.db"
    arguments = ("--models", str(repository), "--review-url", store, "--review-max-confidence", "1")
    server = start_service(*arguments)
    random = np.random.default_rng(2)

    def ask(server: LiveServer) -> Any:
        pixels = random.integers(0, 256, (8, 4, 4), dtype=np.uint8).tolist()
        return httpx.post(
            f"{server.url}/v1/models/tiny-image:predict", json={"instances": pixels}, timeout=60
        )

    end = time.monotonic() + 2
    while time.monotonic() < end:
        assert ask(server).status_code == 200
    server.process.kill()
    server.process.wait()
    with open_store(store) as opened:
        before = opened.counts().total
        assert before > 0
        for item in opened.page(limit=1000):
            assert opened.payload(item.id)
    again = start_service(*arguments)
    assert ask(again).status_code == 200
    eventually(lambda: httpx.get(f"{again.url}/v1/models/tiny-image/review").json()["total"] > before)
