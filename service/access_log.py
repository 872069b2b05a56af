"""The access log: one line for each request, in the format of the other log lines, many written at once.

Python's logging takes longer over a line than the whole service over parsing a small request, so these
lines do not go through it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Literal

import orjson

from service.record import Record

_LOGGER = "service.access"


class AccessLog:
    """Writes to standard error.

    Args:
        log_format: as for `service.logs.configure_logs`.
    """

    def __init__(self, log_format: Literal["text", "json"]) -> None:
        self._lines = _json_lines if log_format == "json" else _text_lines

    def write(self, records: Sequence[Record]) -> None:
        """Write a line for each answered request."""
        text = self._lines(records)
        with suppress(OSError, ValueError):  # a full disk or a closed pipe must not stop the answers
            sys.stderr.write(text)
            sys.stderr.flush()


def _text_lines(records: Sequence[Record]) -> str:
    now_s = time.time()
    moment = f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(now_s))},{int(now_s * 1e3) % 1000:03d}"
    return "".join(
        f"{moment} INFO {_LOGGER} [{record.request_id}] {record.method} {record.path} {record.status} "
        f"{record.seconds * 1e3:.2f} ms{record.key and f' key {record.key}'}"
        f"{'' if record.trace is None else f' trace {record.trace.id}'}\n"
        for record in records
    )


def _json_lines(records: Sequence[Record]) -> str:
    moment = datetime.now(UTC).isoformat(timespec="milliseconds")
    lines = [
        {
            "time": moment,
            "level": "INFO",
            "logger": _LOGGER,
            "request_id": record.request_id,
            "message": f"{record.method} {record.path} {record.status} {record.seconds * 1e3:.2f} ms",
            "method": record.method,
            "path": record.path,
            "status": record.status,
            "milliseconds": round(record.seconds * 1e3, 2),
            **({"key": record.key} if record.key else {}),
            **({} if record.trace is None else {"trace_id": record.trace.id}),
        }
        for record in records
    ]
    return "".join(orjson.dumps(line).decode() + "\n" for line in lines)
