import logging
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import httpx
import orjson
import pytest
from starlette.types import Message, Receive, Scope, Send

from service.access_log import AccessLog
from service.api.requests import RequestMiddleware
from service.ledger import Ledger
from service.logs import request_id
from service.metrics import Metrics
from tests.conftest import running_app
from tests.service.calls import AUDIO, IMAGE, JSON, assert_image_answers, assert_problem, instances, pixels
from tests.service.fakes import gated_app

pytestmark = pytest.mark.anyio

NEW_ID = re.compile("[0-9a-f]{32}")


def access_lines(client: httpx.AsyncClient, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The access lines so far, without the time at which they were written."""
    client.app.state.metrics.gather()  # type: ignore[attr-defined]
    lines = capsys.readouterr().err.splitlines()
    begun = [re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (.*)", line) for line in lines]
    assert all(begun), lines
    return [line[1] for line in begun if line]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """The log, whose records know the request that they were written in."""
    caplog.set_level(logging.INFO)
    caplog.handler.addFilter(_remember_id)
    yield caplog
    caplog.handler.removeFilter(_remember_id)


def _remember_id(record: logging.LogRecord) -> bool:
    record.request_id = request_id.get()
    return True


@pytest.mark.parametrize("sane", ["abc", "a" * 128, "0aF._:/+=@-", "4bf92f35-77b3/4da6"])
async def test_a_sane_id_of_the_caller_is_kept(client: httpx.AsyncClient, sane: str) -> None:
    assert (await client.get("/healthz", headers={"x-request-id": sane})).headers["x-request-id"] == sane


@pytest.mark.parametrize(
    "odd", ["", "a" * 129, "a b", 'a"b', "a\tb", "<script>", "a;b", "é", "a\\b", "%0a", "{}"]
)
async def test_any_other_id_is_replaced(client: httpx.AsyncClient, odd: str) -> None:
    headers = [(b"x-request-id", odd.encode())]
    answer = await client.get("/healthz", headers=headers)
    assert NEW_ID.fullmatch(answer.headers["x-request-id"])


async def test_an_id_with_a_line_break_is_replaced(repository: Path) -> None:
    async with running_app(repository, lane=False) as client:  # no real connection lets one through
        answer = await client.get("/healthz", headers={"x-request-id": "a\n"})
    assert NEW_ID.fullmatch(answer.headers["x-request-id"])


async def test_each_request_without_an_id_gets_one_of_its_own(client: httpx.AsyncClient) -> None:
    ids = {(await client.get("/healthz")).headers["x-request-id"] for _ in range(3)}
    assert len(ids) == 3
    assert all(NEW_ID.fullmatch(each) for each in ids)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/readyz", 200),
        ("GET", "/v1/models/tiny-image", 200),
        ("GET", "/nothing", 404),
        ("POST", "/v1/models/nothing:predict", 404),
        ("DELETE", "/v1/models", 405),
        ("POST", IMAGE, 200),
        ("POST", IMAGE + "?top_k=1", 200),
        ("POST", IMAGE + "?top_k=x", 400),
        ("PUT", IMAGE, 405),
        ("POST", "/v1/models/tiny-image/versions/1:confidence", 200),
        ("POST", AUDIO, 400),
    ],
)
async def test_every_answer_and_every_log_line_carries_the_id(
    client: httpx.AsyncClient, capsys: pytest.CaptureFixture[str], method: str, path: str, status: int
) -> None:
    headers = {**JSON, "x-request-id": "mine-1"}
    answer = await client.request(method, path, headers=headers, content=instances(pixels(1)))
    assert answer.status_code == status
    assert answer.headers["x-request-id"] == "mine-1"
    (line,) = access_lines(client, capsys)
    path = path.split("?")[0]
    message = rf"{method} {re.escape(path)} {status} \d+\.\d\d ms"
    assert re.fullmatch(rf"INFO service\.access \[mine-1\] {message}", line)


@pytest.mark.parametrize("path", [IMAGE, "/healthz"])
async def test_access_lines_are_json_where_the_others_are(
    repository: Path, capsys: pytest.CaptureFixture[str], lane: bool, path: str
) -> None:
    async with running_app(repository, lane=lane, log_format="json") as client:
        await client.post(path, content=instances(pixels(1)), headers={**JSON, "x-request-id": "mine-1"})
        client.app.state.metrics.gather()  # type: ignore[attr-defined]
    (line,) = capsys.readouterr().err.splitlines()
    content = orjson.loads(line)
    status = 200 if path == IMAGE else 405
    expected = {"request_id": "mine-1", "method": "POST", "path": path, "status": status}
    assert expected.items() <= content.items()
    assert content["milliseconds"] > 0


async def test_a_line_break_in_a_path_forges_no_log_line(
    client: httpx.AsyncClient, capsys: pytest.CaptureFixture[str]
) -> None:
    for method, path in (
        ("GET", "/a%0Aforged%20line%C3%A9"),
        ("POST", "/v1/models/a%0Aforged%20line%C3%A9:predict"),
        ("POST", "/v1/models/tiny-image%0A:predict"),
    ):
        assert_problem(await client.request(method, path, headers=JSON), 404)
        (line,) = access_lines(client, capsys)
        assert f"] {method} {path} 404 " in line


@pytest.mark.parametrize(
    "failure", [ValueError("boom"), OSError(28, "no space left"), KeyError("x")], ids=repr
)
async def test_an_internal_failure_is_a_500_problem_and_one_trace_without_the_payload(
    repository: Path,
    log: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    lane: bool,
    failure: Exception,
) -> None:
    images = pixels(2)
    body = instances(images)
    async with gated_app(repository, lane=lane) as (client, predictor):
        predictor.gate.set()
        predictor.failure = failure
        answer = await client.post(IMAGE, content=body, headers={**JSON, "x-request-id": "mine-2"})
        content = assert_problem(answer, 500, "under request mine-2")
        assert "boom" not in answer.text
        assert content["title"] == "Internal Server Error"
        (trace,) = (record for record in log.records if record.exc_info)
        assert trace.request_id == "mine-2"  # type: ignore[attr-defined]
        assert log.text.count("Traceback (most recent call last)") == 1
        assert body.decode()[20:60] not in log.text
        assert str(images[0].tolist())[:40] not in log.text
        (line,) = access_lines(client, capsys)
        assert f"[mine-2] POST {IMAGE} 500 " in line
        predictor.failure = None
        assert_image_answers(await client.post(IMAGE, content=body, headers=JSON), images)
        text = (await client.get("/metrics")).text
    assert f'octet_requests_total{{model="tiny-image",route="{ROUTE}",status="500",version="1"}} 1.0' in text


ROUTE = "/v1/models/{name}:predict"


async def test_a_failure_after_the_answer_began_is_logged_and_answers_no_second_time(
    log: pytest.LogCaptureFixture,
) -> None:
    async def fails_late(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("too late")

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    metrics = Metrics()
    scope: Scope = {"type": "http", "method": "GET", "path": "/x", "headers": [(b"x-request-id", b"late")]}
    scope["app"] = SimpleNamespace(state=SimpleNamespace(draining=False))
    ledger = Ledger(metrics, AccessLog("text"))
    await RequestMiddleware(fails_late, ledger)(scope, receive_nothing, send)
    ledger.write()
    assert [message["type"] for message in sent] == ["http.response.start"]
    assert sent[0]["headers"] == [(b"x-request-id", b"late")]
    assert "RuntimeError: too late" in log.text
    assert metrics.registry.get_sample_value("octet_in_flight") == 0
    counted = {"model": "", "version": "", "route": "unmatched", "status": "200"}
    assert metrics.registry.get_sample_value("octet_requests_total", counted) == 1


async def receive_nothing() -> Message:
    raise AssertionError("nothing here reads the body")


async def test_what_is_no_request_passes_untouched() -> None:
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)

    async def send(message: Message) -> None:
        raise AssertionError("nothing here is answered")

    ledger = Ledger(Metrics(), AccessLog("text"))
    await RequestMiddleware(app, ledger)({"type": "lifespan"}, receive_nothing, send)
    assert seen == [{"type": "lifespan"}]


async def test_an_unknown_name_or_path_never_becomes_a_label(client: httpx.AsyncClient) -> None:
    for path in ("/v1/models/marker", "/marker", "/v1/models/tiny-image/versions/marker"):
        assert (await client.get(path)).status_code == 404
    assert (await client.post("/v1/models/marker:predict")).status_code == 404
    text = (await client.get("/metrics")).text
    assert "marker" not in text
    assert 'octet_requests_total{model="",route="unmatched",status="404",version=""} 1.0' in text
    assert 'octet_requests_total{model="",route="/v1/models/{name}",status="404",version=""} 1.0' in text
    assert f'octet_requests_total{{model="",route="{ROUTE}",status="404",version=""}} 1.0' in text


async def test_a_seldom_method_is_a_405_and_counted_by_its_status_alone(client: httpx.AsyncClient) -> None:
    assert_problem(await client.request("PURGE", "/v1/models"), 405)
    assert "PURGE" not in (await client.get("/metrics")).text


async def test_an_unknown_method_is_a_405_and_counted_by_its_status_alone(repository: Path) -> None:
    async with running_app(repository, lane=False) as client:  # to the parser of a connection it is no HTTP
        assert_problem(await client.request("MARKER", "/v1/models"), 405)
        assert "MARKER" not in (await client.get("/metrics")).text
