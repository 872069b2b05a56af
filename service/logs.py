"""Log lines: one a request and one an event, each with the request's id, as text or JSON. Never a payload."""

from __future__ import annotations

import logging
import logging.config
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Literal

import orjson

# The id of the request that the current task answers; empty outside of one.
request_id: ContextVar[str] = ContextVar("request_id", default="")

_TEXT = "%(asctime)s %(levelname)s %(name)s [%(request_id)s] %(message)s"


class _AddRequestId(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = request_id.get() or "-"
        return True


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, request_id, message, `fields` if passed, and error."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "request_id": getattr(record, "request_id", "-"),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def configure_logs(log_format: Literal["text", "json"]) -> None:
    """Send everything of level INFO and above to standard error in one format."""
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "filters": {"request_id": {"()": _AddRequestId}},
            "formatters": {"text": {"format": _TEXT}, "json": {"()": JsonFormatter}},
            "handlers": {
                "stderr": {
                    "class": "logging.StreamHandler",
                    "filters": ["request_id"],
                    "formatter": log_format,
                }
            },
            "root": {"level": "INFO", "handlers": ["stderr"]},
            # Its start and stop are logged by us, and its warnings are of what any caller can send.
            # What has changed on disk is logged by us too.
            "loggers": {
                "uvicorn": {"handlers": [], "propagate": True},  # it may have set up its own before
                "uvicorn.error": {"level": "ERROR"},
                "watchfiles": {"level": "WARNING"},
            },
        }
    )
