"""The health check of a container: `python -m service.healthcheck` exits with 0 when `/readyz` answers 200.

It needs no shell and no other program in the image, and imports nothing that takes long.
"""

from __future__ import annotations

import os
import sys
from http.client import HTTPConnection, HTTPException

_TIMEOUT_S = 2.0


def main() -> int:
    """Ask the service of this container, where `OCTET_HOST` and `OCTET_PORT` say; return the exit code."""
    host = os.environ.get("OCTET_HOST", "127.0.0.1")
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - every address is this one too
    connection = HTTPConnection(host, int(os.environ.get("OCTET_PORT", "8000")), timeout=_TIMEOUT_S)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        text = response.read(500).decode("utf-8", "replace")
    except (OSError, HTTPException) as error:
        print(f"not ready: {error}", file=sys.stderr)  # noqa: T201
        return 1
    finally:
        connection.close()
    if response.status != 200:
        print(f"not ready: {response.status} {text}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
