"""The watcher: has what is served follow the model repository.

The file system tells of most changes at once. What it does not tell of, as network file systems and links
that are turned elsewhere, is found by looking at everything now and then. A half-written bundle is never
seen, because publishing renames a hidden directory.
"""

from __future__ import annotations

import asyncio
import logging

from watchfiles import awatch

from service.lifecycle import Lifecycle
from service.settings import Settings

logger = logging.getLogger(__name__)


async def watch(settings: Settings, lifecycle: Lifecycle) -> None:
    """Follow the repository until this is cancelled."""
    pause_ms = max(1, round(settings.poll_s * 1000))
    while True:
        try:
            # Which names have changed does not matter: to look at everything costs but a few small files.
            async for _ in awatch(settings.models, rust_timeout=pause_ms, yield_on_timeout=True):
                await lifecycle.follow()
        except (OSError, RuntimeError) as error:  # such as too many watches, or no repository at the moment
            what = (error, settings.poll_s)
            logger.warning("the file system does not tell of changes (%s); looking every %g s", *what)
        await asyncio.sleep(settings.poll_s)
        await lifecycle.follow()
