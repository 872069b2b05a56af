"""Work that is due once a turn of the event loop, however many requests of that turn ask for it.

A turn reads all sockets that have something and then runs what that made ready, so under load one turn
serves many requests. Counting and logging them together costs a fraction of doing it one by one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class OncePerTurn:
    """Calls a function soon, and once, after any number of calls of `ask`."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._asked = False

    def ask(self) -> None:
        """Have the work done after what is ready now. Call it on the event loop."""
        if not self._asked:
            self._asked = True
            asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        self._asked = False
        self._work()
