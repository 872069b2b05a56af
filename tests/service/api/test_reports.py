"""`/report`: what a bundle holds, as its caller wants it, and nothing more."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from service.api.reports import POLICY, wants_json
from tests import tiny
from tests.calibrated import NAME, make_calibrated_bundle
from tests.conftest import running_app
from tests.service.calls import assert_problem

pytestmark = pytest.mark.anyio
URL = f"/v1/models/{NAME}/report"
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a report, under the alias "good", and one without."""
    folder = tmp_path_factory.mktemp("models")
    make_calibrated_bundle(folder)
    (folder / NAME / "serving.json").write_text('{"aliases": {"good": 1}}')
    tiny.make_image_bundle(folder)
    return folder


@pytest.fixture
async def reporting(models: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with running_app(models) as client:
        yield client


@pytest.mark.parametrize("within", ["", "/versions/1", "/labels/good"])
@pytest.mark.parametrize(
    ("accept", "query", "media_type"),
    [
        (BROWSER, "", "text/html"),
        ("*/*", "", "text/html"),
        ("application/json", "", "application/json"),
        (BROWSER, "?format=json", "application/json"),
        ("application/json", "?format=html", "text/html"),
    ],
)
async def test_the_report_comes_as_it_is_wanted_and_as_it_is_in_the_bundle(
    reporting: httpx.AsyncClient, models: Path, within: str, accept: str, query: str, media_type: str
) -> None:
    url = f"/v1/models/{NAME}{within}/report{query}"
    answer = await reporting.get(url, headers={"accept": accept})
    assert answer.status_code == 200
    assert answer.headers["content-type"].partition(";")[0] == media_type
    file = "report.json" if media_type == "application/json" else "report.html"
    assert answer.content == (models / NAME / "1" / file).read_bytes()
    assert answer.headers["vary"] == "Accept"


async def test_the_page_may_neither_run_nor_load_anything(reporting: httpx.AsyncClient) -> None:
    answer = await reporting.get(URL)
    assert answer.headers["content-security-policy"] == POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"
    policy = dict(part.strip().partition(" ")[::2] for part in POLICY.split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["img-src"] == "data:"
    assert "sandbox" in policy
    assert "script-src" not in policy


async def test_the_json_is_that_of_the_model(reporting: httpx.AsyncClient) -> None:
    content = (await reporting.get(URL, headers={"accept": "application/json"})).json()
    described = (await reporting.get(f"/v1/models/{NAME}")).json()
    assert (content["model"], content["version"]) == (NAME, "1")
    for precision, graph in content["graphs"].items():
        assert graph["accuracy"] == pytest.approx(described["graphs"][precision]["metrics"]["accuracy"])


async def test_a_bundle_without_a_report_says_so(reporting: httpx.AsyncClient) -> None:
    for accept in (BROWSER, "application/json"):
        answer = await reporting.get("/v1/models/tiny-image/report", headers={"accept": accept})
        assert_problem(answer, 404, "version 1 of 'tiny-image' holds no evaluation report")


@pytest.mark.parametrize(
    ("url", "status", "words"),
    [
        ("/v1/models/nothing/report", 404, "no model 'nothing'"),
        (f"/v1/models/{NAME}/versions/9/report", 404, "no version '9'"),
        (f"/v1/models/{NAME}/labels/bad/report", 404, "no alias 'bad'"),
        (f"{URL}?format=pdf", 400, "'format' is wrong"),
        (f"{URL}?page=1", 400, "there is no query parameter 'page'"),
    ],
)
async def test_what_cannot_be_told_is_a_problem(
    reporting: httpx.AsyncClient, url: str, status: int, words: str
) -> None:
    assert_problem(await reporting.get(url), status, words)


async def test_a_report_costs_the_service_no_memory_and_one_that_was_changed_is_not_told(
    tmp_path: Path,
) -> None:
    directory = make_calibrated_bundle(tmp_path)
    async with running_app(tmp_path) as client:
        registry = client.app.state.registry  # type: ignore[attr-defined]
        bundle = registry.get(NAME).predictor.bundle
        assert {"report.json", "report.html"} <= set(bundle.manifest.files)
        assert not {"report.json", "report.html"} & set(bundle.files)
        path = directory / "report.json"
        changed = {**json.loads(path.read_bytes()), "held": True}
        path.write_text(json.dumps(changed))
        answer = await client.get(f"{URL}?format=json")
        assert_problem(answer, 500, "the server failed to answer")
        assert (await client.get(URL)).status_code == 200


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("", False),
        ("*/*", False),
        (BROWSER, False),
        ("application/json", True),
        ("application/json, text/plain, */*", True),
        ("application/*", True),
        ("text/html, application/json", False),
        ("application/json;q=0.5, text/html;q=0.4", True),
        ("application/json;q=0.4, text/html;q=0.5", False),
        ("*/*;q=0.8, application/json;q=0", False),
        ("text/html;q=nothing, application/json;q=0.1", True),
        ("APPLICATION/JSON ; Q=1", True),
        (",;,q=", False),
    ],
)
def test_json_is_for_those_who_prefer_it(accept: str, wanted: bool) -> None:
    assert wants_json(accept) is wanted
