import json
import logging
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from service.logs import configure_logs, request_id

pytestmark = pytest.mark.usefixtures("restore_logging")

logger = logging.getLogger("service.of.this.test")


@pytest.fixture
def identified() -> Iterator[None]:
    token = request_id.set("abc-1")
    yield
    request_id.reset(token)


@pytest.mark.usefixtures("identified")
def test_a_text_line_holds_level_logger_request_id_and_message(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("text")
    logger.info("it took %d ms", 5)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.endswith(" INFO service.of.this.test [abc-1] it took 5 ms\n")


def test_outside_of_a_request_the_id_is_a_dash(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("text")
    logger.info("hello")
    assert " [-] hello" in capsys.readouterr().err


@pytest.mark.usefixtures("identified")
def test_a_json_line_is_one_object_with_time_level_logger_id_message_and_fields(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logs("json")
    logger.warning("two\nlines", extra={"fields": {"status": 200, "path": Path("/x")}})
    (line,) = capsys.readouterr().err.splitlines()
    content = json.loads(line)
    assert datetime.fromisoformat(content.pop("time")).utcoffset() == timedelta(0)
    assert content == {
        "level": "WARNING",
        "logger": "service.of.this.test",
        "request_id": "abc-1",
        "message": "two\nlines",
        "status": 200,
        "path": "/x",
    }


def test_a_json_line_of_a_failure_holds_the_trace(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("json")
    try:
        raise ValueError("no")
    except ValueError:
        logger.exception("failed")
    (line,) = capsys.readouterr().err.splitlines()
    content = json.loads(line)
    assert content["request_id"] == "-"
    assert content["error"].startswith("Traceback")
    assert content["error"].endswith("ValueError: no")


def test_details_below_info_and_the_web_servers_own_chatter_are_left_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logs("text")
    logger.debug("detail")
    logging.getLogger("uvicorn.error").info("Started server process")
    logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
    logging.getLogger("uvicorn.error").error("it is broken")
    assert [line.split("] ")[1] for line in capsys.readouterr().err.splitlines()] == ["it is broken"]
