"""The review store: inputs to be looked at, within bounds of age, number and size.

When it is full, what was exported already gives way first, then the unlabelled inputs whose answers are the
surest, of equal ones the oldest. A label that was given and not exported yet is never thrown away.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import astuple, dataclass
from typing import Any, Literal, NamedTuple

from service.errors import ReviewStoreError, UnknownItemError
from service.review.database import Database, Row, open_database
from service.review.items import Item

Outcome = Literal["stored", "known", "full", "too_large"]
Order = Literal["sureness", "confidence", "newest"]

_SCHEMA_VERSION = 1
_COLUMNS = tuple(Item.__dataclass_fields__)
_ORDERS: dict[Order, str] = {
    "sureness": "sureness, created_s, id",
    "confidence": "COALESCE(confidence, confidence_raw), created_s, id",
    "newest": "created_s DESC, id",
}
_MAY_GO = "(label IS NULL OR exported_s IS NOT NULL)"
_GOES_FIRST = "CASE WHEN label IS NULL THEN 1 ELSE 0 END, sureness DESC, created_s, id"
# One input may take this share of the whole store at most; a larger one would push out too many others.
_LARGEST_SHARE = 1 / 16
_AT_ONCE = 256


@dataclass(frozen=True)
class Bounds:
    """How much is kept.

    Attributes:
        max_items: inputs of each model.
        max_bytes: of the stored arrays of all models together.
        max_age_s: after which an input is deleted, unless its label was not exported yet.
    """

    max_items: int
    max_bytes: int
    max_age_s: float


class New(NamedTuple):
    """An input to be stored."""

    item: Item
    payload: bytes


class Counts(NamedTuple):
    """How many inputs are stored, and how many of those have a label."""

    total: int
    labelled: int


class Store:
    """One connection to the store. It belongs to one thread; see `open_store`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self) -> None:
        """Make the tables where there are none.

        Raises:
            ReviewStoreError: that cannot be done, or they are those of another version of this program.
        """
        columns = f"""
            id TEXT PRIMARY KEY, model TEXT NOT NULL, version TEXT NOT NULL, bundle_sha256 TEXT NOT NULL,
            precision TEXT NOT NULL, created_s DOUBLE PRECISION NOT NULL, answer TEXT NOT NULL,
            confidence DOUBLE PRECISION, confidence_raw DOUBLE PRECISION NOT NULL,
            novelty_p_value DOUBLE PRECISION, reasons TEXT NOT NULL, sureness DOUBLE PRECISION NOT NULL,
            size_bytes INTEGER NOT NULL, label TEXT, labelled_s DOUBLE PRECISION,
            exported_s DOUBLE PRECISION, payload {self._database.bytes_type} NOT NULL"""
        database = self._database
        with database.writing():
            database.execute("CREATE TABLE IF NOT EXISTS review_schema (version INTEGER NOT NULL)")
            database.execute(f"CREATE TABLE IF NOT EXISTS review_items ({columns})")
            database.execute(
                "CREATE TABLE IF NOT EXISTS review_bundles (sha256 TEXT PRIMARY KEY, manifest TEXT NOT NULL)"
            )
            # It answers how many and how large without a look at the inputs themselves.
            database.execute("CREATE INDEX IF NOT EXISTS review_sizes ON review_items (model, size_bytes)")
            if not database.query("SELECT version FROM review_schema"):
                database.execute("INSERT INTO review_schema VALUES (:version)", version=_SCHEMA_VERSION)
        self.check()

    def check(self) -> None:
        """See that the tables are there and are of this version of the program.

        Raises:
            ReviewStoreError: they are not.
        """
        found = self._database.query("SELECT version FROM review_schema")
        if found != [(_SCHEMA_VERSION,)]:
            raise ReviewStoreError("the review store was made by another version of this program")

    def snapshot(self) -> AbstractContextManager[None]:
        """Return a context in which all that is read is of one moment."""
        return self._database.reading()

    def known(self, ids: Sequence[str]) -> set[str]:
        """Return those of some ids that are stored."""
        return {each for each in ids if self._query_items("id = :id", id=each)}

    def add(self, new: Sequence[New], manifests: Mapping[str, str], bounds: Bounds) -> list[Outcome]:
        """Store inputs, and make room for them; all of it or nothing.

        Args:
            manifests: SHA-256 -> content of the manifests of the bundles that answered.

        Returns:
            What became of each: "full" where the others are more interesting, or have labels.
        """
        database = self._database
        with database.writing():
            for sha256, manifest in manifests.items():
                database.execute(
                    "INSERT INTO review_bundles VALUES (:sha256, :manifest) ON CONFLICT DO NOTHING",
                    sha256=sha256,
                    manifest=manifest,
                )
            outcomes = [self._insert(each, bounds) for each in new]
            self._enforce(bounds, {each.item.model for each in new})
            stored = self.known([each.item.id for each in new])
        return [
            "full" if outcome == "stored" and each.item.id not in stored else outcome
            for each, outcome in zip(new, outcomes, strict=True)
        ]

    def sweep(self, bounds: Bounds) -> None:
        """Delete what is too old, and what is too much."""
        with self._database.writing():
            models = [model for (model,) in self._database.query("SELECT DISTINCT model FROM review_items")]
            self._enforce(bounds, models)

    def page(
        self,
        model: str | None = None,
        *,
        labelled: bool | None = None,
        order: Order = "sureness",
        limit: int = 100,
        offset: int = 0,
    ) -> list[Item]:
        """Return some of the stored inputs.

        Args:
            model: of this one alone.
            labelled: those that have a label, or those that have none.
            order: "sureness", least sure first; "confidence", lowest first; "newest" first.
        """
        wanted = {None: "1 = 1", True: "label IS NOT NULL", False: "label IS NULL"}[labelled]
        of_model = "1 = 1" if model is None else "model = :model"
        return self._query_items(
            f"{wanted} AND {of_model} ORDER BY {_ORDERS[order]} LIMIT :limit OFFSET :offset",
            limit=limit,
            offset=offset,
            **({} if model is None else {"model": model}),
        )

    def counts(self, model: str | None = None) -> Counts:
        """Return how many inputs are stored, of one model or of all."""
        of_model = "" if model is None else "WHERE model = :model"
        ((total, labelled),) = self._database.query(
            f"SELECT COUNT(*), COUNT(label) FROM review_items {of_model}",
            **({} if model is None else {"model": model}),
        )
        return Counts(total, labelled)

    def get(self, item_id: str, model: str | None = None) -> Item:
        """Return one input.

        Args:
            model: it must be of this one.

        Raises:
            UnknownItemError: there is none.
        """
        found = self._query_items("id = :id", id=item_id)
        if not found or model not in (None, found[0].model):
            raise UnknownItemError(f"the review queue holds no input {item_id[:80]!r}")
        return found[0]

    def find(self, prefix: str) -> Item:
        """Return the one input whose id begins so.

        Raises:
            UnknownItemError: there is none, or more than one.
        """
        # Ids are hexadecimal digits: `g` is greater than any.
        found = self._query_items("id >= :low AND id < :high LIMIT 2", low=prefix, high=f"{prefix}g")
        if len(found) != 1:
            problem = "several inputs whose ids begin with" if found else "no input"
            raise UnknownItemError(f"the review queue holds {problem} {prefix[:80]!r}")
        return found[0]

    def payload(self, item_id: str) -> bytes:
        """Return the stored arrays of one input, as `service.review.items.unpack` reads them.

        Raises:
            UnknownItemError: there is none.
        """
        found = self._database.query("SELECT payload FROM review_items WHERE id = :id", id=item_id)
        if not found:
            raise UnknownItemError(f"the review queue holds no input {item_id[:80]!r}")
        return bytes(found[0][0])

    def manifest(self, bundle_sha256: str) -> str:
        """Return the manifest of the bundle that answered for an input.

        Raises:
            ReviewStoreError: it is not there.
        """
        found = self._database.query(
            "SELECT manifest FROM review_bundles WHERE sha256 = :sha256", sha256=bundle_sha256
        )
        if not found:
            raise ReviewStoreError(f"the review store holds no manifest {bundle_sha256[:12]}")
        return str(found[0][0])

    def label(self, item_id: str, label: str | None) -> None:
        """Give an input a label, or take it away.

        Raises:
            UnknownItemError: there is no such input.
        """
        self._change(
            "UPDATE review_items SET label = :label, labelled_s = :now_s, exported_s = NULL WHERE id = :id",
            item_id,
            label=label,
            now_s=None if label is None else time.time(),
        )

    def delete(self, item_id: str) -> None:
        """Delete one input.

        Raises:
            UnknownItemError: there is no such input.
        """
        self._change("DELETE FROM review_items WHERE id = :id", item_id)
        self._database.forget()

    def note_export(self, items: Sequence[Item]) -> None:
        """Note that labels were exported: they may give way from now on, unless they were changed since."""
        now_s = time.time()
        with self._database.writing():
            for item in items:
                self._database.execute(
                    "UPDATE review_items SET exported_s = :now_s WHERE id = :id AND label = :label",
                    now_s=now_s,
                    id=item.id,
                    label=item.label,
                )

    def _change(self, sql: str, item_id: str, **parameters: object) -> None:
        with self._database.writing():
            if not self._database.execute(sql, id=item_id, **parameters):
                raise UnknownItemError(f"the review queue holds no input {item_id[:80]!r}")

    def _query_items(self, condition: str, **parameters: object) -> list[Item]:
        rows = self._database.query(
            f"SELECT {', '.join(_COLUMNS)} FROM review_items WHERE {condition}", **parameters
        )
        return [_item_of(row) for row in rows]

    def _insert(self, new: New, bounds: Bounds) -> Outcome:
        if len(new.payload) > bounds.max_bytes * _LARGEST_SHARE:
            return "too_large"
        values = dict(zip(_COLUMNS, astuple(new.item), strict=True))
        values |= {"reasons": ",".join(new.item.reasons), "payload": new.payload}
        marks = ", ".join(f":{name}" for name in values)
        sql = f"INSERT INTO review_items ({', '.join(values)}) VALUES ({marks}) ON CONFLICT DO NOTHING"
        return "stored" if self._database.execute(sql, **values) else "known"

    def _enforce(self, bounds: Bounds, models: Collection[str]) -> None:
        database = self._database
        database.execute(
            f"DELETE FROM review_items WHERE created_s < :oldest_s AND {_MAY_GO}",
            oldest_s=time.time() - bounds.max_age_s,
        )
        for model in sorted(models):
            if (surplus := self.counts(model).total - bounds.max_items) > 0:
                self._evict(f"{_MAY_GO} AND model = :model", items=surplus, model=model)
        ((size_bytes,),) = database.query("SELECT COALESCE(SUM(size_bytes), 0) FROM review_items")
        if (surplus := int(size_bytes) - bounds.max_bytes) > 0:
            self._evict(_MAY_GO, size_bytes=surplus)

    def _evict(self, condition: str, *, items: int = 0, size_bytes: int = 0, **parameters: object) -> None:
        """Delete so many inputs, or so many bytes of them, as far as there are any that may go."""
        while items > 0 or size_bytes > 0:
            found = self._database.query(
                f"SELECT id, size_bytes FROM review_items WHERE {condition} "
                f"ORDER BY {_GOES_FIRST} LIMIT {_AT_ONCE}",
                **parameters,
            )
            if not found:
                return
            for item_id, size in found:
                if items <= 0 and size_bytes <= 0:
                    return
                self._database.execute("DELETE FROM review_items WHERE id = :id", id=item_id)
                items, size_bytes = items - 1, size_bytes - size


@contextmanager
def open_store(url: str, *, create: bool = False) -> Iterator[Store]:
    """Open a store for a while; see `open_database`.

    Args:
        create: make it where there is none.

    Raises:
        ReviewStoreError: it cannot be opened, or is of another version of this program.
    """
    database = open_database(url, create=create)
    try:
        store = Store(database)
        try:
            store.check()
        except ReviewStoreError:
            if not create:
                raise
            store.create()
        yield store
    finally:
        database.close()


def _item_of(row: Row) -> Item:
    values: dict[str, Any] = dict(zip(_COLUMNS, row, strict=True))
    values["reasons"] = tuple(filter(None, values["reasons"].split(",")))
    return Item(**values)
