"""The threads that run batches, shared by all models of the process."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


class RunPool:
    """Threads and one slot for each.

    A batch is formed when its slot is held, so that it never waits behind other models' batches while it
    could still grow. Slots are taken and given back on the event loop.

    Args:
        threads: batches that run at the same time.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.executor = ThreadPoolExecutor(threads, thread_name_prefix="run")
        self._free = threads
        self._asking: deque[Callable[[], None]] = deque()

    def take_slot(self, when_free: Callable[[], None]) -> bool:
        """Take a slot, or have a function called when there is one; first come, first served.

        The slot is kept for whom is called, who must take it or withdraw.
        """
        if when_free not in self._asking:
            self._asking.append(when_free)
        if not self._free or self._asking[0] != when_free:
            return False
        self._free -= 1
        self._asking.popleft()
        self._call_next()
        return True

    def withdraw(self, when_free: Callable[[], None]) -> None:
        """Need no slot any more after having asked for one."""
        if when_free in self._asking:
            self._asking.remove(when_free)
            self._call_next()

    def give_back_slot(self) -> None:
        """Make a slot free."""
        self._free += 1
        self._call_next()

    def _call_next(self) -> None:
        if self._free and self._asking:
            self._asking[0]()
