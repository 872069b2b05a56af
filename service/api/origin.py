"""Where a call comes from that would change what is served: not from a page of another site.

The browser of somebody who works on this machine reaches its loopback addresses too, and sends whatever a
page tells it to. It names the page's origin with every call that could change anything; programs name none.
"""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

from fastapi import Request

from service.errors import ModelControlError

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def refuse_foreign_names(request: Request) -> None:
    """Refuse a call for a loopback address by another name.

    A page whose own site has its name lead to this machine is at home here for a browser: it may read what
    it gets, and its calls that change nothing name no origin.

    Raises:
        ModelControlError: it is such a call.
    """
    name = _split(f"//{request.headers.get('host', '')}").hostname
    if request.app.state.settings.host in _LOOPBACK and name not in _LOOPBACK:
        raise ModelControlError(
            f"this is not answered under the name {str(name)[:80]!r}, only under that of a loopback address"
        )


def refuse_foreign_pages(request: Request) -> None:
    """Refuse a call that a page of another site has a browser make.

    A site may also have its own name lead to a loopback address, so the name must be one of those then.

    Raises:
        ModelControlError: it is such a call.
    """
    origin = request.headers.get("origin")
    if origin is None:
        return
    page, asked = _split(origin), _split(f"//{request.headers.get('host', '')}")
    listens_on_loopback = request.app.state.settings.host in _LOOPBACK
    if (
        not page.netloc
        or page.netloc != asked.netloc
        or (listens_on_loopback and page.hostname not in _LOOPBACK)
    ):
        raise ModelControlError(f"a page of {origin[:80]!r} may not change what is served here")


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:  # what is no address is nobody's
        return SplitResult("", "", "", "", "")
