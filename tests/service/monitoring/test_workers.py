"""Two workers behind one port: what one answers the other takes feedback for, and what both count adds up."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from service.monitoring.keys import read_keys
from service.monitoring.tokens import read_token
from tests.calibrated import NAME, make_calibrated_bundle
from tests.conftest import LiveServer
from tests.service.api.test_monitoring import CALL, FEEDBACK, MONITOR, pixels
from tests.service.calls import OCTETS, assert_problem
from tests.service.live import LIMIT_S, eventually, log_text, samples

FLAGS = ("--workers", "2", "--threads", "1", "--drain-delay-s", "0")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    make_calibrated_bundle(folder)
    return folder


def start(start_service: Callable[..., LiveServer], models: Path, folder: Path, *flags: str) -> LiveServer:
    server = start_service("--models", str(models), *FLAGS, *flags, environment={"TMPDIR": str(folder)})
    eventually(lambda: len(re.findall(f"{NAME}/1 is ready", log_text(server))) == 2)
    return server


@pytest.fixture
def server(start_service: Callable[..., LiveServer], models: Path, tmp_path: Path) -> LiveServer:
    return start(start_service, models, tmp_path)


def clients_of(server: LiveServer, stack: ExitStack) -> list[httpx.Client]:
    """A client of each of the two workers: connections that stay open are dealt out evenly."""
    clients = [stack.enter_context(httpx.Client(base_url=server.url, timeout=LIMIT_S)) for _ in range(2)]
    for client in clients:
        assert client.get("/healthz").status_code == 200
    eventually(lambda: sorted(samples(server.url, "octet_connections").values()) in ([1, 1], [1, 2]))
    return clients


def ask(client: httpx.Client, n: int = 4) -> list[dict[str, Any]]:
    answer = client.post(CALL, content=pixels(n).tobytes(), headers=OCTETS)
    assert answer.status_code == 200, answer.text
    results: list[dict[str, Any]] = answer.json()["results"]
    return results


def feed(client: httpx.Client, result: dict[str, Any]) -> httpx.Response:
    return client.post(FEEDBACK, json={"prediction_id": result["prediction_id"], "label": result["label"]})


def test_each_worker_takes_what_the_other_gave_and_their_counts_add_up(
    server: LiveServer, tmp_path: Path
) -> None:
    assert log_text(server).count("OCTET_FEEDBACK_KEY_FILE names a key that lasts") == 1
    (key_file,) = tmp_path.glob("octet-metrics-*/feedback.key")
    assert key_file.stat().st_mode & 0o77 == 0
    with ExitStack() as stack:
        one, other = clients_of(server, stack)
        of_one, of_other = ask(one), ask(other, 6)
        for result in of_one:
            assert read_token(read_keys(key_file), result["prediction_id"]).model == NAME
            assert feed(other, result).status_code == 200
        for result in of_other:
            assert feed(one, result).status_code == 200
        assert_problem(feed(one, of_other[0]), 409)
        for client in (one, other):
            (version,) = client.get(MONITOR).json()["versions"]
            assert (version["processes"], version["rows"]) == (2, 10)
            assert (version["feedback"]["n"], version["feedback"]["accuracy"]) == (10, 1.0)
        assert samples(server.url, "octet_feedback_total") == {
            (NAME, "counted", "1"): 10, (NAME, "repeated", "1"): 1,
        }  # fmt: skip
        assert sum(samples(server.url, "octet_feedback_answers_total").values()) == 10
        eventually(lambda: samples(server.url, "octet_confidence_count") == {(NAME, "1"): 10})
        # The gauges are of each process, told apart by its pid.
        eventually(lambda: sorted(samples(server.url, "octet_live_accuracy").values()) == [1, 1])


def test_a_worker_that_takes_the_place_of_a_dead_one_takes_its_ids(server: LiveServer) -> None:
    with httpx.Client(base_url=server.url, timeout=LIMIT_S) as client:
        (result,) = ask(client, 1)
    children = psutil.Process(server.process.pid).children()
    workers = [each for each in children if "spawn_main" in " ".join(each.cmdline())]
    for worker in workers:
        worker.kill()
    eventually(lambda: len(re.findall(f"{NAME}/1 is ready", log_text(server))) == 4)
    with httpx.Client(base_url=server.url, timeout=LIMIT_S) as client:
        assert feed(client, result).status_code == 200


def test_another_start_with_the_same_key_takes_them_and_without_it_does_not(
    start_service: Callable[..., LiveServer], models: Path, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_text("k" * 40)
    key.chmod(0o600)
    named = ("--feedback-key-file", str(key))
    first = start(start_service, models, tmp_path, *named)
    assert "names a key that lasts" not in log_text(first)
    with httpx.Client(base_url=first.url, timeout=LIMIT_S) as client:
        kept, foreign = ask(client, 2)
    first.process.send_signal(signal.SIGTERM)
    assert first.process.wait(LIMIT_S) == 0
    again = start(start_service, models, tmp_path, *named)
    with httpx.Client(base_url=again.url, timeout=LIMIT_S) as client:
        assert feed(client, kept).status_code == 200
    key.write_text("another" * 10)
    changed = start(start_service, models, tmp_path, *named)
    with httpx.Client(base_url=changed.url, timeout=LIMIT_S) as client:
        assert_problem(feed(client, foreign), 401)
    key.write_text("another" * 10 + "\n" + "k" * 40)
    rotated = start(start_service, models, tmp_path, *named)
    with httpx.Client(base_url=rotated.url, timeout=LIMIT_S) as client:
        assert feed(client, foreign).status_code == 200


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_key_that_is_too_short_stops_the_start_with_one_line(
    start_service: Callable[..., LiveServer], models: Path, tmp_path: Path, workers: str
) -> None:
    key = tmp_path / "key"
    key.write_text("short")
    server = start_service(
        "--models", str(models), "--workers", workers, "--feedback-key-file", str(key), wait=False
    )
    assert server.process.wait(LIMIT_S) == 1
    errors = [line for line in server.log if line.startswith("error: ")]
    assert errors == [f"error: a key in the feedback key file {key} has fewer than 32 characters\n"]
    assert "Traceback" not in log_text(server)
