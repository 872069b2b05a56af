"""Ask a running server over HTTP, with nothing but the standard library."""

from __future__ import annotations

import json
from typing import Any

from octet.errors import CommandError

_TIMEOUT_S = 60


def ask(
    url: str, body: bytes | None = None, headers: dict[str, str] | None = None, api_key: str | None = None
) -> Any:
    """Return the JSON that a server answers; a request with a body is a POST.

    Args:
        api_key: that the server needs, if any.

    Raises:
        CommandError: nobody answers there, or the answer is an error.
    """
    import urllib.error
    import urllib.request

    if not url.startswith(("http://", "https://")):
        raise CommandError(f"{url} is no address of a server; it must begin with http:// or https://")
    request = urllib.request.Request(url, body, headers or {})
    if api_key:
        if not (api_key.isascii() and api_key.isprintable()):  # http.client would print it
            raise CommandError("the API key holds characters that a header cannot carry")
        request.add_unredirected_header("X-API-Key", api_key)  # wherever else the server sends us
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
            return json.loads(answer.read())
    except urllib.error.HTTPError as error:
        raise CommandError(f"{url} answers {error.code}: {_reason(error.read())}") from error
    except urllib.error.URLError as error:
        raise CommandError(f"no server answers at {url}: {error.reason}") from error
    except ValueError as error:
        raise CommandError(f"{url} does not answer in JSON: {error}") from error


def _reason(body: bytes) -> str:
    try:
        found = json.loads(body)
        return str(found.get("error") or found.get("detail"))
    except (ValueError, AttributeError):
        return body[:200].decode(errors="replace")
