"""API keys: who may call what, where a file names keys. Without one, everybody may call everything.

The file holds digests, so whoever reads it knows no key. It is looked at every second; where it has become
unusable, the keys that were read before stay. Every process reads it for itself.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from service.errors import RoleError, UnknownKeyError

logger = logging.getLogger(__name__)

Role = Literal["predict", "feedback", "admin"]
# The headers of HTTP, and the metadata of gRPC, that carry a key.
AUTHORIZATION, API_KEY = "authorization", "x-api-key"

_LINE = re.compile(
    r"(?P<roles>[a-z]+(,[a-z]+)*)\s+(?P<digest>[0-9a-fA-F]{64})(\s+(?P<name>[A-Za-z0-9._-]{1,64}))?"
)
# All are compared with every key that is not remembered.
_MOST_KEYS = 1000
_LOOK_S = 1.0


class KeysFileError(Exception):
    """The file of the keys cannot be used. The message names the line, never what stands in it."""


class ApiKey(NamedTuple):
    """What is known of a key.

    Attributes:
        name: for the log.
    """

    name: str
    roles: frozenset[Role]

    def allows(self, role: Role) -> bool:
        """Whether its holder may do what needs a role; who has "admin" may do everything."""
        return role in self.roles or "admin" in self.roles

    def require(self, role: Role) -> None:
        """Refuse what its holder may not do.

        Raises:
            RoleError: the role is missing.
        """
        if not self.allows(role):
            raise RoleError(f"this needs an API key with the role {role!r}, which {self.name} has not")


class ApiKeys:
    """The keys of one process.

    Args:
        path: of the file; None where no key is needed.

    Attributes:
        required: whether a key is needed.
        on_change: called whenever other keys are known.
    """

    def __init__(self, path: Path | None) -> None:
        self.required = path is not None
        self.on_change: list[Callable[[], None]] = []
        self._path = path
        self._keys: Mapping[bytes, ApiKey] = {}
        self._seen: tuple[int, ...] | None = ()

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Know the keys of the file in the block, as they are at each moment."""
        if self._path is None:
            yield
            return
        await self.look()
        task = asyncio.ensure_future(self._watch())
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    async def look(self) -> None:
        """Read the file if it has changed."""
        assert self._path is not None
        seen = await asyncio.to_thread(_fingerprint, self._path)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self._keys = await asyncio.to_thread(read_api_keys, self._path)
        except KeysFileError as error:
            logger.error("%s; the API keys that were known stay: %d", error, len(self._keys))
            return
        logger.info("API keys that are known: %d", len(self._keys))
        for told in self.on_change:
            told()

    def find(self, sent: str) -> ApiKey | None:
        """Return what is known of a key; how long it takes tells nothing of any."""
        digest = hashlib.sha256(sent.encode("utf-8", "replace")).digest()
        found = None
        for known, key in self._keys.items():
            if hmac.compare_digest(known, digest):
                found = key
        return found

    def identify(self, sent: str) -> ApiKey:
        """Return what is known of the key that a caller sent.

        Raises:
            UnknownKeyError: it sent none, or one that is not known.
        """
        if not sent:
            raise UnknownKeyError("this needs an API key: Authorization: Bearer KEY, or X-API-Key: KEY")
        key = self.find(sent)
        if key is None:
            raise UnknownKeyError("the API key is not known")
        return key

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            try:
                await self.look()
            except Exception:  # a key that is taken out must end, also after this
                logger.exception("the file of the API keys could not be looked at")


def sent_key(authorization: str | None, api_key: str | None) -> str:
    """Return the key that a caller sent in one of the two headers; empty where there is none.

    Where it sends both, that of X-API-Key counts: the other one may be meant for a proxy.
    """
    if api_key:
        return api_key.strip()
    scheme, _, key = (authorization or "").strip().partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def read_api_keys(path: Path) -> dict[bytes, ApiKey]:
    """Read SHA-256 of a key -> what is known of it.

    A line is `<role>[,<role>] <SHA-256 of the key in hexadecimal digits> [<name>]`; `#` begins a comment.

    Raises:
        KeysFileError: it cannot be read, a line cannot be understood, or there is no key or too many.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise KeysFileError(f"{path}: it cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise KeysFileError(f"{path}: it is not UTF-8") from error
    keys: dict[bytes, ApiKey] = {}
    for number, line in enumerate(lines, 1):
        content = line.partition("#")[0].strip()
        if not content:
            continue
        match = _LINE.fullmatch(content)
        if match is None:
            raise KeysFileError(
                f"{path}: line {number} is not '<role>[,<role>] <SHA-256 of the key> [<name>]'"
            )
        roles = set(match["roles"].split(","))
        if not roles <= set(get_args(Role)):
            raise KeysFileError(f"{path}: line {number} names a role other than {', '.join(get_args(Role))}")
        digest = bytes.fromhex(match["digest"])
        if digest in keys:
            raise KeysFileError(f"{path}: line {number} has the key of a line before")
        name = match["name"] or f"sha256-{match['digest'][:8].lower()}"
        keys[digest] = ApiKey(name, frozenset(roles))
    if not 0 < len(keys) <= _MOST_KEYS:
        raise KeysFileError(f"{path}: it holds {len(keys)} keys; 1 to {_MOST_KEYS} may be")
    return keys


def _fingerprint(path: Path) -> tuple[int, ...] | None:
    """Tell whether a file is another one than before; a link to it may lead elsewhere meanwhile."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
