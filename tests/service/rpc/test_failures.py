from __future__ import annotations

import logging

import pytest
from grpc import StatusCode

from bundle.errors import InputError
from service.api import problems
from service.errors import ServiceError, UnknownModelError
from service.logs import request_id
from service.rpc.failures import CODES, STATUSES, refuse


def test_every_code_of_the_table_has_a_status() -> None:
    assert set(CODES.values()) <= set(STATUSES)


def test_a_failure_is_counted_with_the_status_that_rest_gives_it() -> None:
    shared = set(CODES) & set(problems.STATUSES)
    assert InputError in shared
    for kind in shared:
        assert STATUSES[CODES[kind]] == problems.STATUSES[kind], kind


def test_refusals_that_rest_alone_knows_are_of_bodies_connections_and_routes_of_its_own() -> None:
    kinds = {kind.__name__ for kind in ServiceError.__subclasses__()} - {kind.__name__ for kind in CODES}
    bodies = {"BodyTooLargeError", "BodyTimeoutError", "UnsupportedMediaError", "CallerGoneError"}
    feedback = {"ForgedFeedbackError", "LateFeedbackError", "RepeatedFeedbackError"}
    review = {"ReviewOffError", "ReviewStoreError", "UnknownItemError"}
    assert kinds == bodies | feedback | review | {"NoReportError"}


def test_a_refusal_is_told_as_it_is() -> None:
    assert refuse(UnknownModelError("there is no model 'x'")) == (
        StatusCode.NOT_FOUND,
        "there is no model 'x'",
    )


def test_a_long_sentence_is_cut_to_what_clients_take() -> None:
    code, detail = refuse(InputError("ä" * 10_000))
    assert code == StatusCode.INVALID_ARGUMENT
    assert detail == "ä" * 500 + "…"


def test_any_other_failure_is_told_by_the_id_of_its_request_and_traced_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    token = request_id.set("abc")
    try:
        code, detail = refuse(ZeroDivisionError("secret"))
    finally:
        request_id.reset(token)
    assert code == StatusCode.INTERNAL
    assert detail == "the server failed to answer; its log tells why, under request abc"
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ZeroDivisionError)
