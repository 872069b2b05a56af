"""The record of one request: who asked for what, what came of it, and how long it took."""

from __future__ import annotations

import re
import time
import uuid
from dataclasses import dataclass, field
from itertools import count

from service.statistics import Statistics
from service.trace import Trace

# The header of HTTP, and the metadata of gRPC, that carries the id of a request both ways.
HEADER = "x-request-id"
_SANE_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
# Unique ids are a random prefix of the process and a number: a tenth of the time of a random one each.
_PREFIX = uuid.uuid4().hex[:16]
_NUMBERS = count(1)


def new_request_id() -> str:
    """Return 32 hexadecimal digits that no other request has."""
    return f"{_PREFIX}{next(_NUMBERS):016x}"


def choose_id(sent: str) -> str:
    """Return the id that a caller sent, or a new one where it could not stand in a log."""
    return sent if sent and _SANE_ID.fullmatch(sent) else new_request_id()


@dataclass(slots=True)
class Record:
    """What is logged and counted of one request. Who answers it fills in what it finds.

    Attributes:
        path: quoted, so that a line break in it cannot forge a log line.
        route: the path with the names in it replaced, which bounds how many there are.
        model, version: empty where none was found.
        seconds: from the request's head to its answer; set by the ledger.
        key: the name of the API key that was sent; empty where none is needed or known.
        statistics: of the version that it runs, told of its end; None where it runs none.
        trace: of it; None where it is not traced.
    """

    request_id: str
    method: str
    path: str
    route: str = "unmatched"
    model: str = ""
    version: str = ""
    status: int = 500
    began_s: float = field(default_factory=time.perf_counter)
    seconds: float = 0.0
    key: str = ""
    statistics: Statistics | None = None
    trace: Trace | None = None
