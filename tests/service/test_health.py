import httpx
import pytest

pytestmark = pytest.mark.anyio


async def test_healthz_and_readyz_answer(client: httpx.AsyncClient) -> None:
    assert (await client.get("/healthz")).json() == {"status": "ok"}
    assert (await client.get("/readyz")).json() == {"status": "ready"}


async def test_readyz_is_503_while_draining_and_healthz_is_not(client: httpx.AsyncClient) -> None:
    client.app.state.draining = True  # type: ignore[attr-defined]
    answer = await client.get("/readyz")
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert (await client.get("/healthz")).status_code == 200


async def test_metrics_are_prometheus_text(client: httpx.AsyncClient) -> None:
    answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert 'octet_model_ready{model="tiny-image",version="2"} 1.0' in answer.text
    assert "process_resident_memory_bytes" in answer.text
    assert "_created" not in answer.text
