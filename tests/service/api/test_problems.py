import orjson
import pytest

import service.errors
from bundle.errors import InputError
from service.api.problems import STATUSES, problem
from service.errors import ServiceError
from service.logs import request_id


def test_every_failure_of_a_request_has_a_status() -> None:
    known = {
        kind
        for kind in vars(service.errors).values()
        if isinstance(kind, type) and issubclass(kind, ServiceError) and kind is not ServiceError
    }
    assert set(STATUSES) == known | {InputError}
    assert 500 not in STATUSES.values()


@pytest.mark.parametrize(
    ("status", "title", "headers"),
    [
        (400, "Bad Request", {}),
        (408, "Request Timeout", {"connection": "close"}),
        (413, None, {"connection": "close"}),
        (429, "Too Many Requests", {"retry-after": "1"}),
        (499, "Client Closed Request", {}),
        (504, "Gateway Timeout", {}),
    ],
)
def test_a_problem_has_the_standard_members_an_error_and_the_request_id(
    status: int, title: str | None, headers: dict[str, str]
) -> None:
    token = request_id.set("id-1")
    answer = problem(status, "it went wrong")
    request_id.reset(token)
    assert answer.status_code == status
    content = orjson.loads(answer.body)
    assert content.pop("title") == title or title is None
    assert content == {
        "type": "about:blank",
        "status": status,
        "detail": "it went wrong",
        "error": "it went wrong",
        "request_id": "id-1",
    }
    standard = {"content-type": "application/problem+json", "content-length": str(len(answer.body))}
    assert dict(answer.headers) == {**standard, **headers}


def test_headers_of_a_problem_can_be_added() -> None:
    answer = problem(405, "no", {"allow": "GET"})
    assert answer.headers["allow"] == "GET"
