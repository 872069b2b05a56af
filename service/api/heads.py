"""The heads of requests: which ones are plain calls for the lane, and what they say.

Clients send the same head again and again, byte for byte, so what a head says is remembered by its bytes.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import parse_qsl

import httptools
from pydantic import ValidationError

from bundle.errors import InputError
from service.api.answering import parse_timeout
from service.api.calls import Call
from service.api.compression import wanted_coding
from service.api.forms import MULTIPART
from service.api.infer import INFER
from service.api.inputs import OCTETS, media_type_of, parse_shape
from service.api.predict import Confidence, ConfidenceParameters, Parameters, Predict
from service.api.requests import quote_path
from service.api.tensors import HEADER_LENGTH, parse_header_length
from service.api_keys import API_KEY, AUTHORIZATION, ApiKeys, sent_key
from service.record import HEADER
from service.registry import Which
from service.settings import Settings
from service.trace import PARENT_HEADER

# A larger body is read the usual way, which holds back a caller that sends faster than it is read.
_LARGEST_BYTES = 1024 * 1024
_MOST_TARGETS = 1024
# Clients send the same head again and again: its bytes are compared, which saves parsing most of them.
_MOST_HEADS = 4096
_LONGEST_HEAD_BYTES = 1024
_PATHS = (
    re.compile(
        r"/v1/models/(?P<name>[^/:]+)(?P<within>/versions/(?P<version>[^/:]+)|/labels/(?P<alias>[^/:]+))?"
        r":(?P<verb>predict|confidence)"
    ),
    re.compile(r"/v2/models/(?P<name>[^/:]+)(?P<within>/versions/(?P<version>[^/:]+))?/(?P<verb>infer)"),
)
# Headers that change how a body is read.
_UNUSUAL = frozenset({b"transfer-encoding", b"content-encoding", b"expect", b"upgrade"})


class Target(NamedTuple):
    """What a request line asks for."""

    which: Which
    call: Call
    route: str
    log_path: str


class Head(NamedTuple):
    """All that the head of a plain call says."""

    target: Target
    length: int
    media_type: str
    shape: tuple[int, ...] | None
    header_length: int | None
    timeout_s: float
    sent_id: str
    parent: str
    key_name: str = ""


class Heads:
    """Reads heads, and remembers what they say.

    Args:
        settings: limit the length of a body and the time that a caller may ask for.
        keys: that callers need, where they need any; None for none.
    """

    def __init__(self, settings: Settings, keys: ApiKeys | None = None) -> None:
        self._settings = settings
        self._keys = keys if keys is not None and keys.required else None
        if self._keys is not None:
            self._keys.on_change.append(self.forget)
        self._largest_bytes = min(settings.max_body_bytes, _LARGEST_BYTES)
        self._targets: dict[bytes, Target] = {}
        self._heads: dict[bytes, Head] = {}

    def recall(self, raw: bytes) -> Head | None:
        """Return what a head said when the very same bytes were parsed before."""
        return self._heads.get(raw)

    def remember(self, raw: bytes, fields: int, head: Head) -> None:
        """Remember what a head says. Its bytes are all that decides it, whenever they come.

        Not where they may be other bytes than those that the parser took for a head of so many fields: it
        passes over empty lines in front, and has the head of an earlier packet.
        """
        is_whole = raw.startswith(b"POST ") and raw.count(b"\n") == fields + 2
        if is_whole and len(raw) <= _LONGEST_HEAD_BYTES:
            if len(self._heads) >= _MOST_HEADS:
                self._heads.clear()
            self._heads[raw] = head

    def forget(self) -> None:
        """Remember nothing: other keys are known, so what a head may do is another matter."""
        self._heads.clear()

    def read(self, url: bytes, fields: list[tuple[bytes, bytes]]) -> Head | None:
        """Return what a parsed head says, or None where its call must go the usual way."""
        target = self._targets.get(url) or self._learn(url)
        headers = dict(fields)
        if target is None or len(headers) < len(fields) or not _UNUSUAL.isdisjoint(headers):
            return None
        if wanted_coding(headers.get(b"accept-encoding", b"").decode("latin-1")) is not None:
            return None
        key_name = self._check_key(headers)
        if key_name is None:
            return None
        length = headers.get(b"content-length", b"")
        if not length.isdigit() or len(length) > 9 or int(length) > self._largest_bytes:
            return None
        media_type = media_type_of(headers.get(b"content-type", b"").decode("latin-1"))
        if media_type == MULTIPART:  # its boundary stands in the header, too
            return None
        try:
            shape = parse_shape(_text(headers, b"x-tensor-shape")) if media_type == OCTETS else None
            header_length = parse_header_length(_text(headers, HEADER_LENGTH.encode()))
            timeout_s = parse_timeout(_text(headers, b"x-timeout-ms"), self._settings)
        except InputError:
            return None
        sent_id = _text(headers, HEADER.encode()) or ""
        parent = _text(headers, PARENT_HEADER.encode()) or ""
        return Head(
            target, int(length), media_type, shape, header_length, timeout_s, sent_id, parent, key_name
        )

    def _check_key(self, headers: dict[bytes, bytes]) -> str | None:
        """Return the name of the key that was sent, empty where none is needed, or None for a refusal."""
        if self._keys is None:
            return ""
        sent = sent_key(_text(headers, AUTHORIZATION.encode()), _text(headers, API_KEY.encode()))
        key = self._keys.find(sent)
        return key.name if key is not None and key.allows("predict") else None

    def _learn(self, url: bytes) -> Target | None:
        """Take a request line apart and remember it, if it is one for the lane."""
        try:
            parsed = httptools.parse_url(url)
            path = parsed.path.decode("ascii")
            match = next(filter(None, (pattern.fullmatch(path) for pattern in _PATHS)), None)
            query = parse_qsl((parsed.query or b"").decode("latin-1"), keep_blank_values=True)
            if match is None or "%" in path:
                return None
            call = _call_of(match["verb"], dict(query))
        except (httptools.HttpParserInvalidURLError, UnicodeDecodeError, ValidationError):
            return None
        found = match.groupdict()
        which = Which(found["name"], found["version"], found.get("alias"))
        target = Target(which, call, _route_of(which, found["verb"]), quote_path(path))
        if len(url) <= _LONGEST_HEAD_BYTES:
            if len(self._targets) >= _MOST_TARGETS:
                self._targets.clear()
            self._targets[url] = target
        return target


def _call_of(verb: str, query: dict[str, str]) -> Call:
    if verb == "infer":
        return INFER  # whose route leaves a query unread, too
    if verb == "predict":
        return Predict(Parameters.model_validate(query))
    return Confidence(ConfidenceParameters.model_validate(query))


def _route_of(which: Which, verb: str) -> str:
    """The path with the names in it replaced, as the routes have it."""
    within = "/versions/{version}" if which.version is not None else ""
    within = "/labels/{alias}" if which.alias is not None else within
    return f"/v2/models/{{name}}{within}/infer" if verb == "infer" else f"/v1/models/{{name}}{within}:{verb}"


def _text(headers: dict[bytes, bytes], name: bytes) -> str | None:
    value = headers.get(name)
    return None if value is None else value.decode("latin-1")
