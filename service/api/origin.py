"""Where a call comes from that would change what is served: not from a page of another site.

The browser of somebody who works on this machine reaches its loopback addresses too, and sends whatever a
page tells it to. It names the page's origin with every call that could change anything; programs name none.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from fastapi import Request

from service.errors import ModelControlError

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def refuse_foreign_pages(request: Request) -> None:
    """Refuse a call that a page of another site has a browser make.

    A site may also have its own name lead to a loopback address, so the name must be one of those then.

    Raises:
        ModelControlError: it is such a call.
    """
    origin = request.headers.get("origin")
    if origin is None:
        return
    page, asked = urlsplit(origin), urlsplit(f"//{request.headers.get('host', '')}")
    listens_on_loopback = request.app.state.settings.host in _LOOPBACK
    if page.netloc != asked.netloc or (listens_on_loopback and page.hostname not in _LOOPBACK):
        raise ModelControlError(f"a page of {origin[:80]!r} may not change what is served here")
