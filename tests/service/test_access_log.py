import json
import logging
import re
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.access_log import AccessLog
from service.logs import configure_logs, request_id
from service.record import Record

ANSWERED = Record(
    "id-1", "POST", "/v1/models/m:predict", "/v1/models/{name}:predict", "m", "1", 200, seconds=0.0012345
)
GONE = Record("id-2", "GET", "/a%0Ab", status=499, seconds=12.5)


def test_a_text_line_looks_like_the_other_log_lines(
    capsys: pytest.CaptureFixture[str], restore_logging: None
) -> None:
    """Up to what a reader of both would notice: the same time, the same places."""
    configure_logs("text")
    token = request_id.set("id-1")
    logging.getLogger("service.access").info("POST /v1/models/m:predict 200 1.23 ms")
    request_id.reset(token)
    AccessLog("text").write([ANSWERED])
    other, line = capsys.readouterr().err.splitlines()
    moments = [datetime.strptime(each[:23], "%Y-%m-%d %H:%M:%S,%f") for each in (other, line)]
    assert timedelta(0) <= moments[1] - moments[0] < timedelta(seconds=5)
    assert line[23:] == other[23:] == " INFO service.access [id-1] POST /v1/models/m:predict 200 1.23 ms"


def test_a_json_line_holds_what_the_other_lines_hold_and_the_parts_of_its_message(
    capsys: pytest.CaptureFixture[str], restore_logging: None
) -> None:
    configure_logs("json")
    token = request_id.set("id-1")
    logging.getLogger("service.access").info("POST /v1/models/m:predict 200 1.23 ms")
    request_id.reset(token)
    AccessLog("json").write([ANSWERED])
    other, line = map(json.loads, capsys.readouterr().err.splitlines())
    for each in (other, line):
        moment = datetime.fromisoformat(each.pop("time"))
        assert moment.utcoffset() == timedelta(0)
        assert abs(datetime.now(UTC) - moment) < timedelta(seconds=5)
    parts = {"method": "POST", "path": "/v1/models/m:predict", "status": 200, "milliseconds": 1.23}
    assert line == {**other, **parts}
    assert list(line)[: len(other)] == list(other)


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_each_request_has_a_line_in_the_order_of_their_answers(
    capsys: pytest.CaptureFixture[str], log_format: Any
) -> None:
    AccessLog(log_format).write([ANSWERED, GONE] * 3)
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 6
    assert all("id-1" in line for line in lines[::2])
    assert all("id-2" in line and "GET /a%0Ab 499 12500.00 ms" in line for line in lines[1::2])


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_request_is_no_line(capsys: pytest.CaptureFixture[str], log_format: Any) -> None:
    AccessLog(log_format).write([])
    assert capsys.readouterr().err == ""


def test_milliseconds_have_three_digits(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for fraction, expected in ((0.0, "000"), (0.0071, "007"), (0.9999, "999")):
        monkeypatch.setattr(time, "time", lambda fraction=fraction: 1_700_000_000 + fraction)
        AccessLog("text").write([GONE])
        assert re.match(rf"\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d,{expected} INFO", capsys.readouterr().err)


@pytest.mark.parametrize(
    "failure", [OSError(28, "no space left"), ValueError("I/O operation on closed file")]
)
def test_a_log_that_cannot_be_written_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    class Broken:
        def write(self, _: str) -> None:
            raise failure

        flush = write

    monkeypatch.setattr(sys, "stderr", Broken())
    AccessLog("text").write([ANSWERED])
