"""`/docs`: a page that shows the OpenAPI document and sends requests from it. It needs no other server.

The framework's own page would load its script from a content delivery network. The policy in the header holds
browsers to this server, whatever stands in the page.
"""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from starlette.responses import FileResponse

router = APIRouter(include_in_schema=False)

POLICY = "default-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_HEADERS = {"content-security-policy": POLICY, "x-content-type-options": "nosniff"}
_PAGES = Path(__file__).parent / "pages"


@router.get("/docs")
async def page() -> FileResponse:
    """Return the page."""
    return FileResponse(_PAGES / "docs.html", headers=_HEADERS)


@router.get("/docs/docs.css")
async def style() -> FileResponse:
    """Return how it looks."""
    return FileResponse(_PAGES / "docs.css", headers=_HEADERS)


@router.get("/docs/docs.js")
async def script() -> FileResponse:
    """Return what it does."""
    return FileResponse(_PAGES / "docs.js", headers=_HEADERS, media_type="text/javascript")
