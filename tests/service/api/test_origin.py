from __future__ import annotations

from pathlib import Path

import pytest

from tests import tiny
from tests.conftest import running_app

pytestmark = pytest.mark.anyio
UNLOAD = "/v2/repository/models/tiny-image/unload"


@pytest.mark.parametrize(
    ("host", "name", "origin", "allowed"),
    [
        ("127.0.0.1", "localhost:8000", None, True),
        ("127.0.0.1", "anything", None, True),
        ("127.0.0.1", "localhost:8000", "http://localhost:8000", True),
        ("127.0.0.1", "127.0.0.1:8000", "http://127.0.0.1:8000", True),
        ("127.0.0.1", "localhost:8000", "https://elsewhere.example", False),
        ("127.0.0.1", "localhost:8000", "http://localhost:9000", False),
        ("127.0.0.1", "localhost:8000", "null", False),
        ("127.0.0.1", "localhost:8000", "http://[", False),
        ("127.0.0.1", "rebound.example:8000", "http://rebound.example:8000", False),
        ("0.0.0.0", "models.example", "https://models.example", True),
        ("0.0.0.0", "models.example", "https://elsewhere.example", False),
    ],
)
async def test_pages_of_other_sites_change_nothing(
    tmp_path: Path, host: str, name: str, origin: str | None, allowed: bool
) -> None:
    tiny.make_image_bundle(tmp_path)
    headers = {"host": name} | ({"origin": origin} if origin is not None else {})
    async with running_app(tmp_path, host=host, model_control="explicit") as client:
        answer = await client.post(UNLOAD, headers=headers)
        assert answer.status_code == (200 if allowed else 400)
        if not allowed:
            assert "may not change what is served" in answer.json()["error"]
            serving = await client.put("/v1/models/tiny-image/serving", json={}, headers=headers)
            assert serving.status_code == 400
        ready = await client.get("/v2/models/tiny-image/ready")
        assert (ready.status_code == 200) == (not allowed)
