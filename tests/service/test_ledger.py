import asyncio
from collections.abc import Sequence

import pytest

from service.access_log import AccessLog
from service.ledger import Ledger
from service.metrics import Metrics
from service.record import Record
from tests.service.fakes import until

pytestmark = pytest.mark.anyio


class Recorder(AccessLog):
    """Keeps what would be written, and how it was handed over."""

    def __init__(self) -> None:
        super().__init__("text")
        self.written: list[list[Record]] = []

    def write(self, records: Sequence[Record]) -> None:
        self.written.append(list(records))


class Harness:
    def __init__(self) -> None:
        self.metrics = Metrics()
        self.log = Recorder()
        self.ledger = Ledger(self.metrics, self.log)

    def answer(self, status: int = 200, model: str = "m", route: str = "/r") -> Record:
        record = Record("id", "POST", "/path", route, model, "1" if model else "", status)
        self.ledger.begin(record)
        self.ledger.finish(record)
        return record

    def sample(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)

    def requests(self, status: str, model: str = "m", route: str = "/r") -> float | None:
        version = "1" if model else ""
        labels = {"model": model, "version": version, "route": route, "status": status}
        return self.sample("octet_requests_total", **labels)


async def test_requests_are_counted_and_logged_together_soon_after_they_are_answered() -> None:
    harness = Harness()
    records = [harness.answer() for _ in range(5)]
    assert harness.log.written == []
    assert harness.requests("200") is None
    await until(lambda: bool(harness.log.written))
    assert harness.log.written == [records]
    assert harness.requests("200") == 5
    labels = {"model": "m", "version": "1", "route": "/r"}
    assert harness.sample("octet_request_seconds_count", **labels) == 5
    harness.answer()
    await until(lambda: len(harness.log.written) == 2)
    assert harness.requests("200") == 6


async def test_each_kind_of_answer_has_a_count_of_its_own_and_one_time_for_its_route() -> None:
    harness = Harness()
    for status in (200, 200, 400, 499):
        harness.answer(status)
    harness.answer(404, model="", route="unmatched")
    harness.answer(200, model="other")
    harness.ledger.write()
    assert [harness.requests(status) for status in ("200", "400", "499")] == [2, 1, 1]
    assert harness.requests("404", "", "unmatched") == 1
    assert harness.requests("200", "other") == 1
    labels = {"model": "m", "version": "1", "route": "/r"}
    assert harness.sample("octet_request_seconds_count", **labels) == 4


async def test_the_time_of_a_request_is_from_its_beginning_to_its_end() -> None:
    harness = Harness()
    record = Record("id", "POST", "/path", "/r", "m", "1")
    harness.ledger.begin(record)
    await asyncio.sleep(0.02)
    harness.ledger.finish(record)
    await asyncio.sleep(0.02)
    harness.ledger.write()
    assert 0.015 < record.seconds < 10
    labels = {"model": "m", "version": "1", "route": "/r"}
    assert harness.sample("octet_request_seconds_sum", **labels) == pytest.approx(record.seconds)


async def test_what_has_begun_and_is_not_answered_is_in_flight() -> None:
    harness = Harness()
    waiting = [Record("id", "POST", "/path") for _ in range(2)]
    for record in waiting:
        harness.ledger.begin(record)
    harness.answer()
    await until(lambda: harness.sample("octet_in_flight") == 2)
    for record in waiting:
        harness.ledger.finish(record)
    await until(lambda: harness.sample("octet_in_flight") == 0)
    assert sum(map(len, harness.log.written)) == 3


async def test_what_is_rendered_holds_every_request_that_was_answered_before() -> None:
    harness = Harness()
    harness.answer()
    assert (
        b'octet_requests_total{model="m",route="/r",status="200",version="1"} 1.0' in harness.metrics.render()
    )
    harness.metrics.render()
    await asyncio.sleep(0.05)
    assert harness.requests("200") == 1
    assert sum(map(len, harness.log.written)) == 1
