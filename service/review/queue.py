"""The review queue of one process: looks at what ran, and has a thread of its own store what is worth it.

Serving never waits for it. What comes faster than the thread or the store can take is not looked at, and
counted; while the store fails, it is tried again now and then, and the log says so once.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass

import numpy as np

from bundle.rows import Row
from service.budget import Budget
from service.errors import ReviewStoreError
from service.metrics import Metrics
from service.review.items import Item, identify, pack
from service.review.picking import Picked, can_pick, is_judged, pick
from service.review.store import Bounds, New, Store, open_store
from service.settings import Settings
from service.tap import Shown, Tap

logger = logging.getLogger(__name__)

# Runs, and bytes that their rows hold on to, that wait for the thread at most.
_MOST_WAITING = 256
_MOST_HELD_BYTES = 64 * 1024 * 1024
# Runs that are stored in one transaction.
_MOST_TOGETHER = 32
# How often what is too old is deleted where nothing new comes.
_SWEEP_S = 60.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
_STOP_S = 5.0


@dataclass(frozen=True)
class _Waiting:
    """A run that waits for the thread.

    Attributes:
        held_bytes: that its rows keep in memory.
        seen_s: Unix time at which it was shown.
    """

    shown: Shown
    held_bytes: int
    seen_s: float


class Review:
    """Picks rows from what is served and stores them. It is an observer of `service.tap`.

    Args:
        settings: with a `review_url`.
        metrics: told what became of each row.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        assert settings.review_url is not None
        self._url = settings.review_url
        self._max_confidence = settings.review_max_confidence
        self._bounds = bounds_of(settings)
        self._metrics = metrics
        self._budget = Budget(settings.review_rows_per_s)
        self._waiting: queue.Queue[_Waiting | None] = queue.Queue(_MOST_WAITING)
        self._held_bytes = 0  # grows on the event loop, shrinks in the thread
        self._lock = threading.Lock()
        self._told = False
        self._writer = _Writer(self._url, self._bounds, metrics)

    @asynccontextmanager
    async def running(self, tap: Tap) -> AsyncIterator[None]:
        """Look at what runs, until the end; what waits then is stored, if that does not take long."""
        thread = threading.Thread(target=self._work, name="review", daemon=True)
        thread.start()
        tap.add(self)
        try:
            yield
        finally:
            tap.hand_on()
            await asyncio.to_thread(self._stop, thread)

    def observe(self, runs: Sequence[Shown]) -> None:
        """Have the thread look at runs, as far as it keeps up."""
        for shown in runs:
            if not can_pick(shown.predictor, self._max_confidence):
                continue
            rows = len(shown.answers)
            if not (is_judged(shown.predictor, shown.answers) or self._budget.take(rows)):
                self._pass_over(shown)
                continue
            held_bytes = _held_bytes(shown.rows)
            if self._held_bytes + held_bytes > _MOST_HELD_BYTES:
                self._pass_over(shown)
                continue
            try:
                self._waiting.put_nowait(_Waiting(shown, held_bytes, time.time()))
            except queue.Full:
                self._pass_over(shown)
                continue
            with self._lock:
                self._held_bytes += held_bytes

    def _pass_over(self, shown: Shown) -> None:
        manifest = shown.predictor.bundle.manifest
        self._metrics.review_unseen.labels(manifest.name, str(manifest.version)).inc(len(shown.answers))

    def _stop(self, thread: threading.Thread) -> None:
        try:
            self._waiting.put(None, timeout=_STOP_S)
        except queue.Full:
            return  # the store hangs, and the thread ends with the process
        thread.join(_STOP_S)

    def _work(self) -> None:
        """Store what comes, until the end comes."""
        self._writer.sweep()  # it also makes the store, or says at once that this cannot be done
        going = True
        while going:
            batch, going = self._gather()
            if candidates := self._pick(batch):
                self._writer.write(candidates)
            with self._lock:
                self._held_bytes -= sum(each.held_bytes for each in batch)
            del batch, candidates  # they hold on to models, which may be unloaded meanwhile
            if going and time.monotonic() >= self._writer.sweep_at_s:
                self._writer.sweep()
        self._writer.close()

    def _gather(self) -> tuple[list[_Waiting], bool]:
        """Return what waits, at most so much; and whether more may come."""
        batch: list[_Waiting] = []
        with suppress(queue.Empty):
            first = self._waiting.get(timeout=_SWEEP_S)
            while first is not None:
                batch.append(first)
                if len(batch) == _MOST_TOGETHER:
                    return batch, True
                first = self._waiting.get_nowait()
            return batch, False
        return batch, True

    def _pick(self, batch: Sequence[_Waiting]) -> list[_Candidate]:
        found: list[_Candidate] = []
        for each in batch:
            try:
                picked = pick(each.shown.predictor, each.shown.answers, self._max_confidence)
            except Exception as error:  # what one run cannot tell must not end the thread
                if not self._told:  # once: there may be many more of the kind
                    logger.error("a run could not be looked at for review", exc_info=error)
                self._told = True
            else:
                found += [_Candidate(each.shown, one, each.seen_s) for one in picked]
        return found


@dataclass(frozen=True)
class _Candidate:
    """A row that was picked."""

    shown: Shown
    picked: Picked
    seen_s: float

    @property
    def row(self) -> Row:
        return self.shown.rows[self.picked.place]

    def item(self, item_id: str, size_bytes: int) -> Item:
        predictor, picked = self.shown.predictor, self.picked
        manifest = predictor.bundle.manifest
        return Item(
            id=item_id,
            model=manifest.name,
            version=str(manifest.version),
            bundle_sha256=predictor.bundle.manifest_sha256,
            precision=predictor.precision,
            created_s=self.seen_s,
            answer=picked.answer,
            confidence=picked.confidence,
            confidence_raw=picked.confidence_raw,
            novelty_p_value=picked.novelty_p_value,
            reasons=picked.reasons,
            sureness=picked.sureness,
            size_bytes=size_bytes,
        )


class _Writer:
    """Writes to a store that may be away for a while. It belongs to one thread.

    Attributes:
        sweep_at_s: when to delete next what is too old; `time.monotonic()`.
    """

    def __init__(self, url: str, bounds: Bounds, metrics: Metrics) -> None:
        self._url, self._bounds, self._metrics = url, bounds, metrics
        self.sweep_at_s = 0.0
        self._open = ExitStack()
        self._store: Store | None = None
        self._failing = False
        self._pause_s = _FIRST_PAUSE_S
        self._retry_at_s = 0.0  # time.monotonic()

    def write(self, candidates: Sequence[_Candidate]) -> None:
        """Store rows that were picked."""
        if not self._try(lambda store: self._add(store, candidates)):
            self._count(candidates, ["failed"] * len(candidates))

    def sweep(self) -> None:
        """Delete what is too old."""
        self.sweep_at_s = time.monotonic() + _SWEEP_S
        self._try(lambda store: store.sweep(self._bounds))

    def _try(self, work: Callable[[Store], None]) -> bool:
        """Do something with the store, and return whether it was done; not so soon after it failed."""
        if time.monotonic() < self._retry_at_s:
            return False
        try:
            if self._store is None:
                self._store = self._open.enter_context(open_store(self._url, create=True))
            work(self._store)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is logged and serving goes on
            self._fail(error)
            return False
        if self._failing:
            logger.info("the review queue stores inputs again")
        self._failing, self._pause_s = False, _FIRST_PAUSE_S
        self._metrics.review_unavailable.set(0)
        return True

    def close(self) -> None:
        """Close the store."""
        self._store = None
        self._open.close()

    def _add(self, store: Store, candidates: Sequence[_Candidate]) -> None:
        """Compress and store what is not stored yet."""
        ids = [identify(each.shown.predictor.bundle.manifest.name, each.row) for each in candidates]
        known = store.known(ids)
        new: dict[str, New] = {}
        manifests: dict[str, str] = {}
        for item_id, each in zip(ids, candidates, strict=True):
            if item_id in known or item_id in new:
                continue
            payload = pack(each.row)
            new[item_id] = New(each.item(item_id, len(payload)), payload)
            bundle = each.shown.predictor.bundle
            manifests[bundle.manifest_sha256] = bundle.manifest.model_dump_json()
        outcomes = dict(zip(new, store.add(list(new.values()), manifests, self._bounds), strict=True))
        self._count(candidates, [outcomes.pop(item_id, "known") for item_id in ids])

    def _fail(self, error: Exception) -> None:
        self.close()
        if not self._failing:
            trace = None if isinstance(error, ReviewStoreError) else error
            logger.error("inputs are not kept for review, and serving goes on: %s", error, exc_info=trace)
        self._failing = True
        self._retry_at_s = time.monotonic() + self._pause_s
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        self._metrics.review_unavailable.set(1)

    def _count(self, candidates: Sequence[_Candidate], outcomes: Sequence[str]) -> None:
        manifests = [each.shown.predictor.bundle.manifest for each in candidates]
        counts = Counter(
            (manifest.name, str(manifest.version), outcome)
            for manifest, outcome in zip(manifests, outcomes, strict=True)
        )
        for labels, count in counts.items():
            self._metrics.review_stored.labels(*labels).inc(count)


def bounds_of(settings: Settings) -> Bounds:
    """Return how much may be kept."""
    return Bounds(settings.review_max_items, settings.review_max_bytes, settings.review_max_age_s)


def _held_bytes(rows: Sequence[Row]) -> int:
    """How much memory rows keep: their arrays may be views of whole requests' bodies."""
    owners: dict[int, object] = {}
    for row in rows:
        for array in row.values():
            owner: object = array
            while isinstance(owner, np.ndarray) and owner.base is not None:
                owner = owner.base
            owners[id(owner)] = owner
    held = 0
    for owner in owners.values():
        if isinstance(owner, (np.ndarray, memoryview)):
            held += owner.nbytes
        elif isinstance(owner, (bytes, bytearray)):
            held += len(owner)
    return held
