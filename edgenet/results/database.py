"""The database of results: its schema, and how it is opened, so that a kill at any moment costs nothing finished.

SQLite's own rollback journal, flushed to the disk: a kill undoes what was not committed, and nothing else. Not its
WAL: that needs shared memory, so no network file system and no read-only folder, and leaves two more files beside the
one that a user copies. A connection lives for one transaction: none is open while a model is timed.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from devices.folders import data_folder
from edgenet.errors import EdgenetError

BUSY_S = 10.0
"""How long to wait for another process's transaction, which takes milliseconds."""

MIGRATIONS: list[tuple[str, ...]] = [
    (
        """CREATE TABLE calls (
            id INTEGER PRIMARY KEY, token TEXT NOT NULL UNIQUE, started_at TEXT NOT NULL, command TEXT NOT NULL,
            tools TEXT NOT NULL, device TEXT NOT NULL, kind TEXT NOT NULL, runner TEXT NOT NULL, info TEXT NOT NULL)""",
        """CREATE TABLE results (
            id INTEGER PRIMARY KEY, call_id INTEGER NOT NULL REFERENCES calls, path TEXT NOT NULL,
            threads INTEGER NOT NULL, file TEXT NOT NULL, sha256 TEXT NOT NULL, file_bytes INTEGER NOT NULL,
            precision TEXT NOT NULL, finished_at TEXT, call TEXT, runtime TEXT, delegate TEXT, delegate_note TEXT,
            ops INTEGER, delegated_ops INTEGER, cold_start_ms REAL, median_ms REAL, ci_low_ms REAL, ci_high_ms REAL,
            p90_ms REAL, p99_ms REAL, mad_ms REAL, cv REAL, peak_rss_bytes INTEGER, output_hash TEXT, verdict TEXT,
            why TEXT, state_before TEXT, state_after TEXT, UNIQUE (call_id, path, threads))""",
        """CREATE TABLE repetitions (
            id INTEGER PRIMARY KEY, result_id INTEGER NOT NULL REFERENCES results, number INTEGER NOT NULL,
            round INTEGER NOT NULL, ended_at TEXT NOT NULL, fault TEXT NOT NULL, after_gap INTEGER NOT NULL,
            warmup_runs INTEGER NOT NULL, load_ms REAL NOT NULL, first_ms REAL NOT NULL,
            peak_rss_bytes INTEGER NOT NULL, output_hash TEXT NOT NULL, state_warm TEXT NOT NULL,
            state_end TEXT NOT NULL, median_ms REAL NOT NULL, samples BLOB NOT NULL, UNIQUE (result_id, number))""",
        "CREATE INDEX results_of_a_file ON results (sha256)",
    ),
    ("ALTER TABLE repetitions ADD COLUMN hot INTEGER NOT NULL DEFAULT 0",),
]
"""Statements that lead from each version of the schema (PRAGMA user_version) to the next. Only ever appended to.

finished_at: NULL where the benchmark was cut short. samples: int64 nanoseconds in order, little-endian, zlib.
"""

_ADVICE = {
    "not a database": "it is damaged: move it away, and a new one is begun",
    "malformed": "it is damaged: move it away, and a new one is begun",
    "locked": "another program holds it: close that",
    "full": "make room on its disk",
    "disk": "make room on its disk, or look whether it is failing",
    "": "check its folder's permissions, or set EDGENET_DATA_HOME to another",
}


def results_file() -> Path:
    """Where results are kept; raises DeviceError where there is no home folder."""
    return data_folder() / "results.sqlite3"


@contextlib.contextmanager
def opened(create: bool) -> Iterator[sqlite3.Connection]:
    """Open the database in its newest schema; whatever goes wrong with it is one EdgenetError."""
    path = results_file()
    try:
        if create:
            path.parent.mkdir(parents=True, exist_ok=True)
        uri = f"{path.absolute().as_uri()}?mode={'rwc' if create else 'rw'}"
        with contextlib.closing(sqlite3.connect(uri, timeout=BUSY_S, isolation_level=None, uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            _migrate(connection)
            yield connection
    except (sqlite3.Error, OSError) as exc:
        said = str(exc.strerror if isinstance(exc, OSError) else exc)
        advice = next(advice for words, advice in _ADVICE.items() if words in said)
        raise EdgenetError(f"{path}: {said}; {advice}") from exc


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit what the block does, or undo all of it."""
    # IMMEDIATE: a transaction that begins by reading cannot wait for another writer later on.
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite may have ended it by itself: a full disk
            connection.execute("ROLLBACK")
        raise


def _migrate(connection: sqlite3.Connection) -> None:
    if _schema(connection) == len(MIGRATIONS):
        return
    with transaction(connection):
        for statements in MIGRATIONS[_schema(connection) :]:  # asked again: another process may have been faster
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")


def _schema(connection: sqlite3.Connection) -> int:
    (number,) = connection.execute("PRAGMA user_version").fetchone()
    if number > len(MIGRATIONS):
        raise EdgenetError(
            f"{results_file()} is of schema {number}, written by a newer edgenet; this one knows {len(MIGRATIONS)}: "
            "upgrade edgenet, or set EDGENET_DATA_HOME to another folder"
        )
    return int(number)


def insert(connection: sqlite3.Connection, table: str, row: Mapping[str, Any], keys: int) -> int:
    """Insert a row, unless there is one with the same first columns; its id.

    table and the names are ours; keys: how many columns tell rows apart.
    """
    values, names = _values(row), list(row)
    unique, places = ", ".join(names[:keys]), ", ".join("?" * len(names))
    connection.execute(
        f"INSERT INTO {table} ({', '.join(names)}) VALUES ({places}) ON CONFLICT ({unique}) DO NOTHING", values
    )
    where = " AND ".join(f"{name} = ?" for name in names[:keys])
    (found,) = connection.execute(f"SELECT id FROM {table} WHERE {where}", values[:keys]).fetchone()
    return int(found)


def update(connection: sqlite3.Connection, table: str, number: int, row: Mapping[str, Any]) -> None:
    """Change columns of the row of this id."""
    places = ", ".join(f"{name} = ?" for name in row)
    connection.execute(f"UPDATE {table} SET {places} WHERE id = ?", (*_values(row), number))


def storable(text: str) -> str:
    """What SQLite takes: a file's name may hold bytes that are no UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()


def _values(row: Mapping[str, Any]) -> list[Any]:
    return [storable(value) if isinstance(value, str) else value for value in row.values()]
