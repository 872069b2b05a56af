"""`/docs` shows the interface and asks no other server."""

import re
from pathlib import Path

import httpx
import pytest

from service.api import docs

pytestmark = pytest.mark.anyio

PAGES = sorted((Path(docs.__file__).parent / "pages").iterdir())


@pytest.mark.parametrize(
    ("path", "media_type"),
    [("/docs", "text/html"), ("/docs/docs.css", "text/css"), ("/docs/docs.js", "text/javascript")],
)
async def test_browsers_are_held_to_this_server(
    client: httpx.AsyncClient, path: str, media_type: str
) -> None:
    answer = await client.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == f"{media_type}; charset=utf-8"
    policy = dict(each.strip().split(" ", 1) for each in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'self'"
    assert not any("http" in sources or "unsafe" in sources for sources in policy.values())


async def test_all_that_the_page_loads_is_there(client: httpx.AsyncClient) -> None:
    page = (await client.get("/docs")).text
    found = set(re.findall(r'(?:src|href)="([^"]+)"', page)) - {"data:,"}
    assert found == {"docs/docs.css", "docs/docs.js", "openapi.json"}
    for path in found:
        assert (await client.get(f"/{path}")).status_code == 200


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_nothing_in_the_page_names_another_server(page: Path) -> None:
    assert len(PAGES) == 3
    assert "//" not in re.sub(r"^ *// .*$|\{ // .*$", "", page.read_text(), flags=re.MULTILINE)


async def test_the_framework_pages_that_load_from_elsewhere_are_gone(client: httpx.AsyncClient) -> None:
    for path in ("/redoc", "/docs/oauth2-redirect"):
        assert (await client.get(path)).status_code == 404
