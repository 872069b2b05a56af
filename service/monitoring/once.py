"""Once over replicas: feedback that any process has counted is refused by all that share a Redis.

Without one, repeats are refused by the process that saw them. While Redis does not answer it is as without
one: what a caller tells is not lost because of it.
"""

from __future__ import annotations

import logging

logger = logging.getLogger(__name__)

_PREFIX = "octet:feedback:"
# A caller waits for it.
_TIMEOUT_S = 1.0


class Once:
    """Remembers in Redis which answers feedback was counted of.

    Args:
        url: `redis://…`, `rediss://…` or `unix://…`.
        max_age_s: how long a prediction id is taken, and so remembered.
    """

    def __init__(self, url: str, max_age_s: int) -> None:
        # An extra of its own.
        from redis.asyncio import Redis
        from redis.exceptions import RedisError

        self._redis = Redis.from_url(url, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S)
        self._failures = (RedisError, OSError)
        self._max_age_s = max_age_s
        self._is_away = False

    async def claim(self, nonce: bytes) -> bool:
        """Return whether nobody has claimed it before; also where that cannot be known."""
        try:
            is_new = await self._redis.set(_PREFIX + nonce.hex(), b"", nx=True, ex=self._max_age_s)
        except self._failures as error:
            if not self._is_away:
                logger.warning("repeated feedback is refused within a process alone: Redis fails (%s)", error)
            self._is_away = True
            return True
        if self._is_away:
            logger.info("Redis answers again: repeated feedback is refused by all replicas")
        self._is_away = False
        return bool(is_new)

    async def stop(self) -> None:
        """Close the connections."""
        await self._redis.aclose()
