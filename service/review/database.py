"""The two databases that a review store can lie in, behind one small interface.

The statements are of the SQL that SQLite and PostgreSQL share; what differs (how a connection is opened, how
a writer gets its turn, the type of bytes, the mark of a parameter) stands here and nowhere else. Each
connection belongs to one thread.
"""

from __future__ import annotations

import os
import re
import sqlite3
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from service.errors import ReviewStoreError

if TYPE_CHECKING:
    import psycopg

SQLITE = "sqlite:///"
POSTGRES = ("postgresql://", "postgres://")
# How long another process may hold the store before this one gives up.
_BUSY_S = 5.0
_STATEMENT_S = 20
# Of the lock that writers to PostgreSQL take in turn, so that two do not make room for the same input.
_LOCK = 0x6F637465  # "octe"
_PARAMETER = re.compile(r":([a-z_0-9]+)")

Row = tuple[Any, ...]


class Database(ABC):
    """A connection.

    Attributes:
        bytes_type: of a column that holds bytes.
    """

    bytes_type: str

    @abstractmethod
    def query(self, sql: str, **parameters: object) -> list[Row]:
        """Return the rows that a statement gives.

        Raises:
            ReviewStoreError: the database cannot do it.
        """

    @abstractmethod
    def execute(self, sql: str, **parameters: object) -> int:
        """Return how many rows a statement changed.

        Raises:
            ReviewStoreError: the database cannot do it.
        """

    @abstractmethod
    def writing(self) -> AbstractContextManager[None]:
        """Return a context in which all is done or nothing, and in which no other process writes.

        Raises:
            ReviewStoreError: the turn does not come, or the end cannot be written.
        """

    @abstractmethod
    def reading(self) -> AbstractContextManager[None]:
        """Return a context in which all that is read is of one moment.

        Raises:
            ReviewStoreError: the database cannot do it.
        """

    @abstractmethod
    def forget(self) -> None:
        """Leave no trace of what was deleted, as far as the database can."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection."""


class SqliteDatabase(Database):
    """A file; several processes of one machine may share it.

    Args:
        create: make the file where there is none, readable by its owner alone.
    """

    bytes_type = "BLOB"

    def __init__(self, path: Path, *, create: bool) -> None:
        self._path = path
        with self._failing():
            if create:
                with suppress(FileExistsError):
                    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            elif not path.is_file():
                raise ReviewStoreError(f"there is no review store {path}")
            self._connection = sqlite3.connect(
                f"file:{quote(str(path))}?mode=rw", timeout=_BUSY_S, isolation_level=None, uri=True
            )
            try:
                self._configure()
            except BaseException:
                self._connection.close()
                raise

    def _configure(self) -> None:
        """Let others read meanwhile, lose no more than the last change by a kill, and overwrite what goes."""
        self._connection.execute("PRAGMA secure_delete = ON")
        end_s = time.monotonic() + _BUSY_S
        while True:  # where two processes change the mode at once, SQLite does not wait for the other
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > end_s:
                    raise
                time.sleep(0.02)

    def query(self, sql: str, **parameters: object) -> list[Row]:
        """Return the rows that a statement gives."""
        with self._failing():
            return self._connection.execute(sql, parameters).fetchall()

    def execute(self, sql: str, **parameters: object) -> int:
        """Return how many rows a statement changed."""
        with self._failing():
            return self._connection.execute(sql, parameters).rowcount

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the one lock that SQLite has for writers."""
        self.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                self._connection.rollback()
            raise

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Read from the file and the log as they are at the first look."""
        self.execute("BEGIN")
        try:
            yield
        finally:
            with suppress(sqlite3.Error):
                self._connection.rollback()

    def forget(self) -> None:
        """Move the log into the file and empty it; where a reader is in the way, a later time does it."""
        with suppress(ReviewStoreError):
            self.query("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Close the connection."""
        with suppress(sqlite3.Error):
            self._connection.close()

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise ReviewStoreError(f"the review store {self._path} cannot be used: {reason}") from error


class PostgresDatabase(Database):
    """A PostgreSQL server, which the replicas of a service may share."""

    bytes_type = "BYTEA"

    def __init__(self, url: str) -> None:
        with self._failing():
            import psycopg

            self._connection: psycopg.Connection[Row] = psycopg.connect(
                url,
                autocommit=True,
                connect_timeout=int(_BUSY_S),
                options=f"-c statement_timeout={_STATEMENT_S}s -c lock_timeout={int(_BUSY_S)}s",
            )

    def query(self, sql: str, **parameters: object) -> list[Row]:
        """Return the rows that a statement gives."""
        with self._failing():
            return self._connection.execute(_marked(sql), parameters).fetchall()

    def execute(self, sql: str, **parameters: object) -> int:
        """Return how many rows a statement changed."""
        with self._failing():
            return self._connection.execute(_marked(sql), parameters).rowcount

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold a lock that all writers to review stores take; it ends with the transaction."""
        with self._failing(), self._connection.transaction():
            self._connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            yield

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Read from one snapshot."""
        with self._failing(), self._connection.transaction():
            self._connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            yield

    def forget(self) -> None:
        """PostgreSQL's own vacuum overwrites what was deleted, in its time."""

    def close(self) -> None:
        """Close the connection."""
        with self._failing():
            self._connection.close()

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            import psycopg
        except ImportError as error:
            raise ReviewStoreError("PostgreSQL needs psycopg, which the extra 'postgres' installs") from error
        try:
            yield
        except psycopg.Error as error:
            reason = " ".join(str(error).split())[:300]
            raise ReviewStoreError(f"the review store in PostgreSQL cannot be used: {reason}") from error


def open_database(url: str, *, create: bool) -> Database:
    """Open `sqlite:///file` (four slashes for an absolute path), `postgresql://…`, or the path of a file.

    Args:
        create: make a SQLite file where there is none.

    Raises:
        ReviewStoreError: it cannot be opened; the message holds no password.
    """
    if url.startswith(POSTGRES):
        return PostgresDatabase(url)
    return SqliteDatabase(Path(url.removeprefix(SQLITE)), create=create)


def _marked(sql: str) -> bytes:
    """Mark the parameters as psycopg has them."""
    return _PARAMETER.sub(r"%(\1)s", sql).encode()
