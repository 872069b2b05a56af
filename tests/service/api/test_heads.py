from collections.abc import Sequence

import pytest

from service.api import heads as module
from service.api.heads import Head, Heads
from service.api.predict import Confidence, Predict
from service.registry import Which
from service.settings import Settings

FIELDS = [(b"host", b"octet"), (b"content-type", b"image/png"), (b"content-length", b"70")]
URL = b"/v1/models/m:predict"


@pytest.fixture
def heads() -> Heads:
    return Heads(Settings(max_body_bytes=1000, deadline_ms=5000))


def with_field(name: bytes, value: bytes) -> list[tuple[bytes, bytes]]:
    """The usual fields, one of them replaced or added."""
    return [*((each, other) for each, other in FIELDS if each != name), (name, value)]


def raw_head(url: bytes = URL, fields: Sequence[tuple[bytes, bytes]] = FIELDS) -> bytes:
    lines = [b"POST %b HTTP/1.1" % url, *(b"%b: %b" % field for field in fields), b"", b""]
    return b"\r\n".join(lines)


def call_of(head: Head) -> Predict:
    assert isinstance(head.target.call, Predict)
    return head.target.call


def test_a_head_says_what_is_asked_of_which_model(heads: Heads) -> None:
    head = heads.read(URL, FIELDS)
    assert head is not None
    assert head.target.which == Which("m")
    assert (head.target.route, head.target.log_path) == ("/v1/models/{name}:predict", "/v1/models/m:predict")
    assert type(call_of(head)) is Predict
    assert (head.length, head.media_type, head.shape, head.timeout_s, head.sent_id) == (
        70,
        "image/png",
        None,
        5.0,
        "",
    )
    other = heads.read(b"/v1/models/m/versions/7:confidence?top_k=2&invert=true", FIELDS)
    assert other is not None
    assert other.target.which == Which("m", "7")
    assert other.target.route == "/v1/models/{name}/versions/{version}:confidence"
    assert other.target.log_path == "/v1/models/m/versions/7:confidence"
    assert type(call_of(other)) is Confidence
    assert (call_of(other).parameters.top_k, call_of(other).parameters.invert) == (2, True)


def test_headers_that_matter_are_read(heads: Heads) -> None:
    head = heads.read(URL, with_field(b"x-timeout-ms", b" 100 "))
    assert head is not None
    assert head.timeout_s == 0.1
    head = heads.read(URL, with_field(b"x-timeout-ms", b"6000"))
    assert head is not None
    assert head.timeout_s == 5
    head = heads.read(URL, with_field(b"x-request-id", b"\xe9"))
    assert head is not None
    assert head.sent_id == "\xe9"
    octets = [*with_field(b"content-type", b"application/octet-stream"), (b"x-tensor-shape", b"2, 3")]
    head = heads.read(URL, octets)
    assert head is not None
    assert head.shape == (2, 3)
    head = heads.read(URL, with_field(b"x-tensor-shape", b"nonsense"))  # of no matter for an image
    assert head is not None
    assert head.shape is None


@pytest.mark.parametrize(
    "url",
    [
        b"/",
        b"*",
        b"/healthz",
        b"/v1/models/m",
        b"/v1/models/m:classify",
        b"/v1/models/m:predict/",
        b"/v1/models/a/b:predict",
        b"/v1/models/:predict",
        b"/v1/models/%6d:predict",
        b"/v1/models/m%0a:predict",
        b"/v1/models/m/versions/%31:predict",
        b"/v1/models/\xe9:predict",
        b"/v1/models/m:predict?top_k=0",
        b"/v1/models/m:predict?topk=1",
        b"/v1/models/m:predict?invert",
        b"/v1/models/m:predict?=",
    ],
)
def test_other_request_lines_are_not_for_the_lane(heads: Heads, url: bytes) -> None:
    assert heads.read(url, FIELDS) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"content-length", b""),
        (b"content-length", b"+5"),
        (b"content-length", b"5 "),
        (b"content-length", "٥".encode()),
        (b"content-length", b"\xb2"),
        (b"content-length", b"1_0"),
        (b"content-length", b"1001"),
        (b"content-length", b"0" * 5000 + b"5"),
        (b"content-length", b"9" * 5000),
        (b"transfer-encoding", b"chunked"),
        (b"content-encoding", b""),
        (b"expect", b"100-continue"),
        (b"upgrade", b"h2c"),
        (b"x-timeout-ms", b"0"),
        (b"x-timeout-ms", b"1_0"),
        (b"x-timeout-ms", b"\xb2"),
        (b"x-timeout-ms", b""),
    ],
)
def test_other_headers_are_not_for_the_lane(heads: Heads, name: bytes, value: bytes) -> None:
    assert heads.read(URL, with_field(name, value)) is None


def test_headers_that_stand_twice_or_are_missing_are_not_for_the_lane(heads: Heads) -> None:
    assert heads.read(URL, [*FIELDS, (b"content-type", b"image/png")]) is None
    assert heads.read(URL, [*FIELDS, (b"x-some", b"1"), (b"x-some", b"1")]) is None
    assert heads.read(URL, FIELDS[:-1]) is None
    octets = with_field(b"content-type", b"application/octet-stream")
    assert heads.read(URL, [*octets, (b"x-tensor-shape", b"x")]) is None


def test_a_head_is_remembered_by_its_bytes(heads: Heads) -> None:
    head = heads.read(URL, FIELDS)
    assert head is not None
    assert heads.recall(raw_head()) is None
    heads.remember(raw_head(), len(FIELDS), head)
    assert heads.recall(raw_head()) is head
    assert heads.recall(raw_head(URL + b"?top_k=1")) is None


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\r\n\r\n",
        b"\r\n" + raw_head(),
        b"POS",
        raw_head()[:-2],
        raw_head() + b"\r\n",
        raw_head(fields=FIELDS[1:]),
        raw_head(fields=[*FIELDS, (b"x", b"y")]),
        raw_head().replace(b"POST", b"GET"),
    ],
)
def test_bytes_that_may_not_be_the_whole_head_are_not_remembered(heads: Heads, raw: bytes) -> None:
    head = heads.read(URL, FIELDS)
    assert head is not None
    heads.remember(raw, len(FIELDS), head)
    assert heads.recall(raw) is None


def test_what_is_remembered_is_bounded(heads: Heads, monkeypatch: pytest.MonkeyPatch) -> None:
    """By number and by length: anyone can send as many long ones as they like."""
    monkeypatch.setattr(module, "_MOST_HEADS", 8)
    monkeypatch.setattr(module, "_MOST_TARGETS", 8)
    for i in range(1, 30):
        url = URL + b"?top_k=%d" % i
        for _ in range(2):
            head = heads.read(url, FIELDS)
            assert head is not None
            assert call_of(head).parameters.top_k == i
        heads.remember(raw_head(url), len(FIELDS), head)
        assert heads.recall(raw_head(url)) is head
        assert len(heads._heads) <= 8
        assert len(heads._targets) <= 8
    before = len(heads._heads), len(heads._targets)
    long = URL + b"?top_k=2" + b"&invert=false" * 500
    head = heads.read(long, FIELDS)
    assert head is not None
    assert call_of(head).parameters.top_k == 2
    heads.remember(raw_head(long), len(FIELDS), head)
    assert heads.recall(raw_head(long)) is None
    assert (len(heads._heads), len(heads._targets)) == before
