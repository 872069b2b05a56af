"""What a call that runs a model is, whichever protocol it speaks and whichever way it comes.

The lane and the routes read, run and answer calls through this, so that both do the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from starlette.responses import Response

from bundle.answer import Answer
from bundle.decoding import Limits
from bundle.manifest import Manifest
from bundle.rows import Row
from service.registry import Served


class Sent(NamedTuple):
    """A request's body and all in its head that says how to read it.

    Attributes:
        media_type: lower case, without parameters; empty where the request names none.
        shape: of an octet-stream tensor, with the batch dimension, or None.
        header_length: bytes of the JSON in front of binary tensors, or None where there is but JSON.
        expires_s: `time.monotonic()` after which nobody waits for the result.
        boundary: what separates the parts of a form.
    """

    body: bytes
    media_type: str
    shape: tuple[int, ...] | None
    header_length: int | None
    expires_s: float
    boundary: bytes = b""


class Reply(NamedTuple):
    """The body of an answer with status 200, and the headers that go with it."""

    body: bytes
    media_type: str
    headers: tuple[tuple[str, str], ...] = ()


class Question(NamedTuple):
    """What a call asks: rows to run, and how to answer once they have.

    Attributes:
        priority: 1 goes first; 0 is where one goes that says nothing.
        timeout_s: how long the caller waits, where the body says so.
    """

    rows: list[Row]
    reply: Callable[[list[Answer]], Reply]
    priority: int = 0
    timeout_s: float | None = None


class Call(Protocol):
    """One kind of call, with what its path says."""

    def check_media_type(self, manifest: Manifest, media_type: str) -> None:
        """Refuse what the model cannot take before the body is read.

        Raises:
            UnsupportedMediaError: the message lists what it takes.
        """

    def is_quick(self, sent: Sent) -> bool:
        """Whether a body is so small that reading it may keep the event loop busy."""

    def read(self, served: Served, sent: Sent, limits: Limits) -> Question:
        """Parse, decode and validate a body.

        Raises:
            InputError: anything in it is not usable.
            DeadlineError: it took longer than the caller waits.
        """

    def refuse(self, error: Exception) -> Response:
        """Return the answer to a failure, in the form that callers of this protocol expect."""
