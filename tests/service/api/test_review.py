"""The review queue over HTTP: who may see it, what it shows, and what it refuses."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from bundle.decoding import decode_audio, decode_image
from bundle.media import AudioDecoding, ImageDecoding
from service.review.store import open_store
from tests import tiny
from tests.conftest import running_app
from tests.service.fakes import LIMIT_S

pytestmark = pytest.mark.anyio

LOCAL = {"host": "127.0.0.1:8000"}
PIXELS = np.random.default_rng(7).integers(0, 256, (6, 4, 4), dtype=np.uint8)
SOUND = np.random.default_rng(7).uniform(-1, 1, 50).astype(np.float32)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    tiny.make_image_bundle(folder)
    tiny.make_audio_bundle(folder)
    return folder


@asynccontextmanager
async def reviewing(models: Path, folder: Path, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a service that keeps every input, because no answer is as sure as 1."""
    chosen = {"review_url": f"sqlite:///{folder}/review.db", "review_max_confidence": 1, **settings}
    async with running_app(models, **chosen) as client:
        client.headers.update(LOCAL)
        yield client


@pytest.fixture
async def client(models: Path, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with reviewing(models, tmp_path) as client:
        yield client


async def ask_about(client: httpx.AsyncClient, model: str, values: list[Any]) -> list[dict[str, Any]]:
    """Ask for predictions, and return what is kept once all of it is."""
    answer = await client.post(f"/v1/models/{model}:predict", json={"instances": values})
    assert answer.status_code == 200, answer.text
    end = time.monotonic() + LIMIT_S
    while True:
        kept = (await client.get(f"/v1/models/{model}/review")).json()
        if kept["total"] >= len(values):
            items: list[dict[str, Any]] = kept["items"]
            return items
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


async def test_what_was_asked_is_listed_least_sure_first(client: httpx.AsyncClient) -> None:
    items = await ask_about(client, "tiny-image", PIXELS.tolist())
    assert len(items) == 6
    sureness = [item["sureness"] for item in items]
    assert sureness == sorted(sureness)
    assert {item["model"] for item in items} == {"tiny-image"}
    url = "/v1/models/tiny-image/review"
    page = (await client.get(f"{url}?limit=2&offset=1")).json()
    assert [item["id"] for item in page["items"]] == [item["id"] for item in items[1:3]]
    assert (page["total"], page["labelled"]) == (6, 0)
    answer = await client.get(url)
    assert answer.headers["cache-control"] == "no-store"
    assert (await client.get("/v1/models/tiny-audio/review")).json()["total"] == 0


async def test_an_image_is_shown_as_values_and_as_a_picture(client: httpx.AsyncClient) -> None:
    items = await ask_about(client, "tiny-image", PIXELS.tolist())
    shown = [(await client.get(f"/v1/models/tiny-image/review/{item['id']}")).json() for item in items]
    values = [np.array(each["inputs"]["pixels"]["data"], np.uint8) for each in shown]
    assert {each.tobytes() for each in values} == {each.tobytes() for each in PIXELS}
    assert shown[0] | items[0] == shown[0]
    assert shown[0]["labels"] == list(tiny.LABELS)
    assert shown[0]["inputs"]["pixels"]["shape"] == [4, 4]
    url = f"/v1/models/tiny-image/review/{items[0]['id']}"
    decoding = ImageDecoding(height=4, width=4, channels=1, background=0)
    for picture in (
        await client.get(f"{url}?as=png"),
        await client.get(url, headers={"accept": "image/avif,image/*,*/*;q=0.8"}),
    ):
        assert picture.headers["content-type"] == "image/png"
        assert picture.headers["x-content-type-options"] == "nosniff"
        np.testing.assert_array_equal(decode_image(picture.content, decoding, max_pixels=99), values[0])
    arrays = await client.get(f"{url}?as=npz")
    np.testing.assert_array_equal(np.load(io.BytesIO(arrays.content))["pixels"], values[0])
    assert (await client.get(url, headers={"accept": "*/*"})).headers["content-type"] == "application/json"
    refused = await client.get(f"{url}?as=wav")
    assert (refused.status_code, refused.json()["detail"]) == (
        400, "the inputs of tiny-image cannot be shown as wav"
    )  # fmt: skip


async def test_a_sound_is_shown_as_a_sound(client: httpx.AsyncClient) -> None:
    (item,) = await ask_about(client, "tiny-audio", [SOUND.tolist()])
    sound = await client.get(
        f"/v1/models/tiny-audio/review/{item['id']}", headers={"accept": "audio/wav, application/json"}
    )
    assert sound.headers["content-type"] == "audio/wav"
    decoded = decode_audio(sound.content, AudioDecoding(sample_rate_hz=8000), max_audio_s=1)
    np.testing.assert_array_equal(decoded, SOUND)


async def test_inputs_are_labelled_exported_and_deleted(client: httpx.AsyncClient) -> None:
    items = await ask_about(client, "tiny-image", PIXELS.tolist())
    url = "/v1/models/tiny-image/review"
    for item, label in zip(items[:3], (tiny.LABELS[1], tiny.LABELS[2], tiny.LABELS[0]), strict=True):
        changed = await client.put(f"{url}/{item['id']}", json={"label": label})
        assert (changed.status_code, changed.json()["label"]) == (200, label)
        assert changed.json()["labelled_at"] is not None
    assert (await client.put(f"{url}/{items[2]['id']}", json={"label": None})).json()["label"] is None
    listed = (await client.get(f"{url}?labelled=true")).json()
    assert {item["id"] for item in listed["items"]} == {items[0]["id"], items[1]["id"]}
    assert (listed["total"], listed["labelled"]) == (6, 2)

    exported = await client.get(f"{url}:export")
    assert exported.status_code == 200
    arrays = np.load(io.BytesIO(exported.content))
    assert arrays["labels"].tolist() == [1, 2]
    assert arrays["pixels"].shape == (2, 4, 4)
    assert (await client.get(f"{url}:export?version=2")).status_code == 404

    gone = f"{url}/{items[0]['id']}"
    assert (await client.delete(gone)).json() == {"deleted": items[0]["id"]}
    for again in (
        await client.delete(gone),
        await client.get(gone),
        await client.put(gone, json={"label": "a"}),
    ):
        assert again.status_code == 404
        assert "holds no input" in again.json()["detail"]
    assert (await client.get(f"{url}")).json()["total"] == 5


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b'{"label": "z"}', "there is no label 'z'; there are " + ", ".join(tiny.LABELS)),
        (b'{"label": 1}', "a label must be a text"),
        (b'{"label": "a", "more": 1}', 'the body must be {"label"'),
        (b"[]", 'the body must be {"label"'),
        (b"{", "the body is not JSON"),
    ],
)
async def test_a_label_that_is_none_is_refused(client: httpx.AsyncClient, body: bytes, detail: str) -> None:
    (item, *_) = await ask_about(client, "tiny-image", PIXELS[:1].tolist())
    answer = await client.put(f"/v1/models/tiny-image/review/{item['id']}", content=body)
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith(detail)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/models/nobody/review", 404),
        ("/v1/models/tiny-image/review/0123", 404),
        ("/v1/models/tiny-image/review:export", 404),
        ("/v1/models/tiny-image/review?limit=0", 400),
        ("/v1/models/tiny-image/review?limit=1001", 400),
        ("/v1/models/tiny-image/review?order=random", 400),
        ("/v1/models/tiny-image/review?offset=-1", 400),
        ("/v1/models/tiny-image/review?page=1", 400),
        ("/v1/models/tiny-image/review/0123?as=gif", 400),
    ],
)
async def test_what_cannot_be_shown_is_refused(client: httpx.AsyncClient, path: str, status: int) -> None:
    answer = await client.get(path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


async def test_an_input_is_found_under_its_own_model_alone(client: httpx.AsyncClient) -> None:
    (item, *_) = await ask_about(client, "tiny-image", PIXELS[:1].tolist())
    other = f"/v1/models/tiny-audio/review/{item['id']}"
    assert (await client.get(other)).status_code == 404
    assert (await client.delete(other)).status_code == 404
    assert (await client.put(other, json={"label": "a"})).status_code == 404


EVERY_CALL = [
    ("GET", ""), ("GET", "/0123"), ("PUT", "/0123"), ("DELETE", "/0123"), ("GET", ":export"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "rest"), EVERY_CALL)
async def test_where_nothing_is_kept_every_call_says_so(models: Path, method: str, rest: str) -> None:
    async with running_app(models) as client:
        answer = await client.request(
            method, f"/v1/models/tiny-image/review{rest}", headers=LOCAL, json={"label": "a"}
        )
        assert answer.status_code == 404
        assert answer.json()["detail"] == (
            "no inputs are kept for review here; OCTET_REVIEW_URL names a store for them"
        )


@pytest.mark.parametrize(("method", "rest"), EVERY_CALL)
@pytest.mark.parametrize(
    ("settings", "headers", "detail"),
    [
        ({"model_control": "none"}, {}, "OCTET_MODEL_CONTROL=explicit allows it"),
        ({"host": "0.0.0.0"}, {}, "OCTET_MODEL_CONTROL=explicit allows it"),  # not on a loopback address
        ({}, {"origin": "http://evil.example"}, "a page of 'http://evil.example'"),
        ({}, {"host": "evil.example"}, "not answered under the name 'evil.example'"),
        ({}, {"host": "["}, "not answered under the name"),
    ],
)
async def test_who_may_not_change_what_is_served_may_not_see_what_is_kept(
    models: Path, tmp_path: Path, method: str, rest: str, settings: Any, headers: Any, detail: str
) -> None:
    async with reviewing(models, tmp_path, **settings) as client:
        answer = await client.request(
            method, f"/v1/models/tiny-image/review{rest}", headers={**LOCAL, **headers}, json={"label": "a"}
        )
        assert answer.status_code == 400
        assert detail in answer.json()["detail"]


async def test_elsewhere_explicit_control_opens_it(models: Path, tmp_path: Path) -> None:
    async with reviewing(models, tmp_path, host="0.0.0.0", model_control="explicit") as client:
        answer = await client.get("/v1/models/tiny-image/review", headers={"host": "octet.example"})
        assert answer.status_code == 200


async def test_a_store_that_cannot_be_used_harms_no_prediction(models: Path, tmp_path: Path) -> None:
    async with reviewing(models, tmp_path / "none") as client:
        answer = await client.post("/v1/models/tiny-image:predict", json={"instances": PIXELS.tolist()})
        assert answer.status_code == 200
        refused = await client.get("/v1/models/tiny-image/review")
        assert refused.status_code == 503
        assert "cannot be used: No such file or directory" in refused.json()["detail"]
        assert (await client.get("/readyz")).status_code == 200


async def test_what_is_kept_of_a_model_that_is_not_served_any_more_can_be_seen(
    models: Path, tmp_path: Path
) -> None:
    async with reviewing(models, tmp_path) as client:
        (item, *_) = await ask_about(client, "tiny-image", PIXELS[:1].tolist())
    other = tmp_path / "models"
    tiny.make_audio_bundle(other)
    async with reviewing(other, tmp_path) as client:
        assert (await client.get("/v1/models/tiny-image/review")).json()["total"] == 1
        url = f"/v1/models/tiny-image/review/{item['id']}"
        assert (await client.put(url, json={"label": tiny.LABELS[1]})).json()["label"] == tiny.LABELS[1]
        assert (await client.get(f"{url}?as=png")).status_code == 200


async def test_nothing_of_a_request_but_its_input_is_kept(models: Path, tmp_path: Path) -> None:
    async with reviewing(models, tmp_path) as client:
        client.headers.update({"x-request-id": "who-asked-this", "user-agent": "my-browser"})
        await ask_about(client, "tiny-image", PIXELS[:2].tolist())
    with open_store(f"sqlite:///{tmp_path}/review.db") as store:
        assert store.counts().total == 2
    content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    for trace in (b"who-asked-this", b"my-browser", b"127.0.0.1"):
        assert trace not in content
