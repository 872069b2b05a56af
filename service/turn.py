"""Work that is done once for many that ask for it.

A turn of the event loop reads all sockets that have something and then runs what that made ready, so under
load one turn serves many requests. What they need can be done for all of them together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Together:
    """Calls a function once after any number of calls of `ask`.

    Args:
        after_s: how long more may ask; 0 for the end of what is ready now.

    It belongs to the event loop on which it is asked first.
    """

    def __init__(self, work: Callable[[], None], after_s: float = 0.0) -> None:
        self._work = work
        self._after_s = after_s
        self._asked = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def ask(self) -> None:
        """Have the work done. Call it on the event loop."""
        if self._asked:
            return
        self._asked = True
        if self._loop is None:  # asking for it each time would cost a system call
            self._loop = asyncio.get_running_loop()
        if self._after_s:
            self._loop.call_later(self._after_s, self._run)
        else:
            self._loop.call_soon(self._run)

    def _run(self) -> None:
        self._asked = False
        self._work()
