"""What a process serves, told so that another one can serve the same."""

from __future__ import annotations

from pydantic import Field

from bundle.media import Frozen
from bundle.serving import Serving


class InService(Frozen):
    """What is served of one model."""

    versions: tuple[int, ...]
    serving: Serving


class Standing(Frozen):
    """All that another process must know to serve the same as this one.

    Attributes:
        unloaded: names of the models that were unloaded explicitly.
    """

    models: dict[str, InService] = Field(default_factory=dict)
    unloaded: tuple[str, ...] = ()
