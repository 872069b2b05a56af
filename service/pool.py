"""The threads that run batches, shared by all models of the process."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor


class RunPool:
    """Threads and one slot for each.

    A batch is formed when its slot is held, so that it never waits behind other models' batches while it
    could still grow.

    Args:
        threads: batches that run at the same time.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.slots = asyncio.Semaphore(threads)
        self.executor = ThreadPoolExecutor(threads, thread_name_prefix="run")
