"""An SQLite file of records: how it is opened, checked, read and written. All of it blocks."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path

from arraylstm_serve.errors import StartupError, cause
from arraylstm_serve.stores.base import Change, Clock, Failed, Loaded, Outcome, StoreError, judge
from arraylstm_serve.stores.record import HEADER

APPLICATION = 0x414C5352
"""Marks the file as ours: "ALSR"."""

SCHEMA = 1
"""The version of the tables."""

_TABLES = f"""
CREATE TABLE records (key TEXT NOT NULL PRIMARY KEY, expires REAL NOT NULL, record BLOB NOT NULL);
CREATE INDEX records_expire ON records (expires);
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {SCHEMA};
"""
_LOAD = "SELECT record FROM records WHERE key = ? AND expires > ?"
_HEAD = f"SELECT substr(record, 1, {HEADER}) FROM records WHERE key = ? AND expires > ?"
_PUT = """
INSERT INTO records VALUES (?, ?, ?)
ON CONFLICT (key) DO UPDATE SET expires = excluded.expires, record = excluded.record
"""
_REMOVE = "DELETE FROM records WHERE key = ?"
_SWEEP = "DELETE FROM records WHERE rowid IN (SELECT rowid FROM records WHERE expires <= ? LIMIT ?)"
_NO_DATABASE = "is not an SQLite database: name another file"

BACKUP_PAGES = 256
"""Pages copied before those who wait are served; about a megabyte."""

SQLITE_ENDS = ("-journal", "-shm", "-wal")
"""How the names of files end that SQLite has beside a database."""

WAL_PAGES = 4000
"""Pages in the write-ahead log, 16 MB, before it is written back. A session that changes often is written back once."""

WAL_BYTES = 64 << 20
"""The most bytes that the write-ahead log keeps when it has been written back."""


class SqliteFile:
    """Records in an SQLite file that no other process can open meanwhile. One thread uses it.

    One connection is enough, as it is the only one: the fault that corrupts write-ahead logs (SQLite 3.7.0 to 3.51.2)
    needs two.

    Args:
        path: the file; it is made if it is missing.
        durable: whether each commit reaches the disk before it returns (`synchronous=FULL`); else the last ones may be
            lost when the machine loses power, but not when the process is killed.
        ttl: seconds after its last write that a record lives.
        clock: returns seconds since the epoch.
        patience: seconds to wait for another process to let go of the file.

    Raises:
        StartupError: the file cannot be used; the message has the remedy.
    """

    def __init__(self, path: Path, *, durable: bool, ttl: float, clock: Clock, patience: float) -> None:
        self._path = path
        self._ttl = ttl
        self._clock = clock
        _find_file(path)
        try:
            self._connection = sqlite3.connect(path, timeout=patience, isolation_level=None)
        except sqlite3.Error as error:
            raise _startup_error(path, error) from None
        try:
            self._prepare(durable)
        except sqlite3.Error as error:
            self._connection.close()
            raise _startup_error(path, error) from None
        except StartupError:
            self._connection.close()
            raise

    def load(self, keys: Sequence[str]) -> dict[str, Loaded]:
        """Return the record of each key."""
        now = self._clock()
        try:
            return {key: self._first(_LOAD, key, now) for key in keys}
        except sqlite3.Error as error:
            return dict.fromkeys(keys, Failed(_reason(error)))

    def commit(self, batches: Sequence[Sequence[Change]]) -> list[list[Outcome]]:
        """Make the changes of all batches in one transaction, and return their outcomes."""
        now, committing = self._clock(), False
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            outcomes = [[self._change(change, now) for change in changes] for changes in batches]
            committing = True
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            return [[Failed(_reason(error), unknown=committing) for _ in changes] for changes in batches]
        except BaseException:
            self._roll_back()  # else the next transaction could not begin
            raise
        return outcomes

    def _roll_back(self) -> None:
        with suppress(sqlite3.Error):
            self._connection.execute("ROLLBACK")

    def sweep(self, most: int) -> int:
        """Remove at most so many expired records, and return how many.

        Raises:
            StoreError: SQLite cannot.
        """
        try:
            return self._connection.execute(_SWEEP, (self._clock(), most)).rowcount
        except sqlite3.Error as error:
            raise StoreError(f"Expired sessions cannot be removed: {_reason(error)}.") from None

    def backup(self, target: Path, between: Callable[[], None]) -> None:
        """Write a copy to a new file. It has all that is committed before the end of the copying.

        SQLite's own interface copies in steps and carries commits of this connection over to the copy, so it never
        begins again. VACUUM INTO would hold up every commit until the end.

        Args:
            target: the file; it appears when it is complete.
            between: called between two steps.

        Raises:
            StoreError: the file is there already, or the one beside it (`.part`) that is written first; or it cannot be
                written.
        """
        part = self._part(target)
        try:
            with closing(sqlite3.connect(part)) as copy:
                self._connection.backup(copy, pages=BACKUP_PAGES, progress=lambda *_: between())
            _name(part, target)
            _sync_folder(target.parent)
        except (OSError, sqlite3.Error) as error:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            raise StoreError(f"The backup cannot be written: {cause(error)} ({target}).") from None

    def _part(self, target: Path) -> Path:
        """Make the file beside a new backup that it is written to first. What is there already is never touched.

        Raises:
            StoreError: there is one, or the backup, already; or it cannot be made.
        """
        part = Path(f"{target}.part")
        if target.name in {f"{self._path.name}{end}" for end in SQLITE_ENDS}:
            raise StoreError(f"SQLite gives the name {target.name} to a file of the store; name the backup otherwise.")
        for file in (target, part):
            if os.path.lexists(file):
                raise StoreError(f"{file} is there already; name a new file for the backup.")
        try:
            os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except (OSError, ValueError) as error:
            raise StoreError(f"The backup cannot be written: {cause(error)} ({target}).") from None
        return part

    def close(self) -> None:
        """Write the log back into the file and close it."""
        self._connection.close()

    def _prepare(self, durable: bool) -> None:
        """Take the file for this process, check what it is, and make its tables if it is new."""
        connection = self._connection
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        new = self._check()
        if self._pragma("journal_mode = WAL") != "wal":
            raise StartupError(f"The session store {self._path} cannot have a write-ahead log; put it on a local disk.")
        connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        connection.execute("PRAGMA fullfsync = ON")  # on macOS a plain fsync leaves the data in the drive's cache
        connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
        connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
        connection.execute("BEGIN IMMEDIATE")
        if new:
            for statement in filter(str.strip, _TABLES.split(";")):
                connection.execute(statement)
        connection.execute("COMMIT")

    def _check(self) -> bool:
        """Return whether the file is empty.

        Raises:
            StartupError: the file is another program's, or of another version.
        """
        application, version = self._pragma("application_id"), self._pragma("user_version")
        if application == APPLICATION and version == SCHEMA:
            return False
        if application == APPLICATION:
            detail = f"has tables of version {version}; this server reads version {SCHEMA}: name another file"
        elif self._connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] or application:
            detail = "is another program's database: name another file"
        elif not self._pragma("page_count") and self._path.stat().st_size:  # SQLite would write over a few bytes
            detail = _NO_DATABASE
        else:
            return True
        raise StartupError(f"The session store {self._path} {detail}.")

    def _pragma(self, words: str) -> object:
        return self._connection.execute(f"PRAGMA {words}").fetchone()[0]

    def _first(self, query: str, key: str, now: float) -> bytes | None:
        row = self._connection.execute(query, (key, now)).fetchone()
        return None if row is None else row[0]

    def _change(self, change: Change, now: float) -> Outcome:
        verdict = judge(self._first(_HEAD, change.key, now), change)
        if verdict != "apply":
            return verdict
        if change.record is None:
            self._connection.execute(_REMOVE, (change.key,))
        else:
            self._connection.execute(_PUT, (change.key, now + self._ttl, change.record))
        return "applied"


def _find_file(path: Path) -> None:
    """Make the file if there is none.

    Raises:
        StartupError: it cannot be made, or is not a plain file.
    """
    if not path.parent.is_dir():
        raise StartupError(f"The folder of the session store {path} is missing; make it first.")
    if path.exists() and not path.is_file():
        raise StartupError(f"The session store {path} is not a file; name a file.")
    try:
        _create(path)
    except OSError as error:
        raise StartupError(f"The session store {path} cannot be made: {cause(error)}.") from None
    for place in (path, path.parent):
        if not os.access(place, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
            raise StartupError(f"The session store {path} cannot be used: {place} is not writable.")


def _create(path: Path) -> None:
    """Make a file that only its owner can read, if there is none.

    A file that is there is not opened: closing it again would drop the locks that this process has on it.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def _name(part: Path, target: Path) -> None:
    """Give a complete file its name. A file that has got this name meanwhile stays, where links can be made.

    Raises:
        FileExistsError: there is one.
    """
    try:
        os.link(part, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        part.rename(target)
    else:
        part.unlink()


def _sync_folder(folder: Path) -> None:
    """Let a new name in a folder reach the disk, where folders can be opened."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _startup_error(path: Path, error: sqlite3.Error) -> StartupError:
    """Return the error with its remedy, by SQLite's name for it."""
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        fault = "is open in another process: stop that one. Servers that share sessions need Redis or Valkey"
    elif name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
        fault = f"cannot be used: {error}. The file, its folder and {path.name}-wal must be writable"
    elif name.startswith("SQLITE_NOTADB"):
        fault = _NO_DATABASE
    elif name.startswith("SQLITE_CORRUPT"):
        fault = f"is damaged: {error}. Put a backup in its place"
    else:
        fault = f"cannot be used: {_reason(error)}"
    return StartupError(f"The session store {path} {fault}.")


def _reason(error: sqlite3.Error) -> str:
    return f"{error} ({getattr(error, 'sqlite_errorname', type(error).__name__)})"
