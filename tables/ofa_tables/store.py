"""The file behind a table (SQLite): append-only Measurements, safe against crashes, one file whenever it is closed.

One process writes at a time. A committed Measurement survives ``kill -9`` of the writer; a power cut may cost the last
few, which are then measured again.
"""

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any

from ofa_tables.errors import TableError, TableUnreadable
from ofa_tables.measurement import Measurement

APPLICATION_ID = 0x0FA1A7E0
FORMAT = 1

_COLUMNS = tuple(field.name for field in fields(Measurement))

_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE networks (
    key TEXT PRIMARY KEY, space TEXT NOT NULL, architecture TEXT NOT NULL, role TEXT NOT NULL
);
CREATE TABLE measurements (
    visit_id TEXT PRIMARY KEY, key TEXT NOT NULL, status TEXT NOT NULL, error TEXT NOT NULL, round INTEGER NOT NULL,
    resolution_px INTEGER, count INTEGER NOT NULL, median_ms REAL, mean_ms REAL, std_ms REAL, samples_ns BLOB NOT NULL,
    warmup_runs INTEGER NOT NULL, first_ns INTEGER NOT NULL, timed_ns INTEGER NOT NULL, load_ns INTEGER NOT NULL,
    warm INTEGER NOT NULL, narrow INTEGER NOT NULL, started_at REAL NOT NULL, received_at REAL NOT NULL
);
CREATE INDEX measurements_by_key ON measurements (key);
"""


class Store:
    """An open table file. Every sqlite3 error leaves as a TableError that names the file and the way out."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection

    @classmethod
    def create(cls, path: Path) -> "Store":
        if path.exists():
            raise TableError(f"{path} exists already; choose another file, or remove it")
        try:
            store = cls(path, _connect(path, "rwc"))
            with store._guarded():
                store._connection.executescript(
                    f"PRAGMA application_id={APPLICATION_ID}; PRAGMA user_version={FORMAT}; BEGIN; {_SCHEMA} COMMIT;"
                )
            return store
        except sqlite3.Error as error:
            raise TableError(
                f"cannot create {path}: {error}; is the folder there and writable, and is there room?"
            ) from None

    @classmethod
    def open(cls, path: Path) -> "Store":
        """Raises TableUnreadable for a file that is absent, foreign, truncated, newer, or in use."""
        if not path.is_file():
            raise TableUnreadable(f"{path} is not there; make it with ofa-profile or ofa-table import")
        try:
            connection = _connect(path, "rw")
            application = connection.execute("PRAGMA application_id").fetchone()[0]
            version = connection.execute("PRAGMA user_version").fetchone()[0]
        except sqlite3.Error as error:
            raise _unreadable(path, error) from None
        store = cls(path, connection)
        try:
            if application != APPLICATION_ID:
                raise TableUnreadable(
                    f"{path} is not a latency table of ofa-profile; for YAML or CSV use ofa-table import"
                )
            if version > FORMAT:
                raise TableUnreadable(
                    f"{path} has table format {version}, this ofa-profile reads up to {FORMAT}; update ofa-profile"
                )
            damage = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if damage != "ok":
                raise TableUnreadable(f"{path} is damaged ({damage}); restore a copy, or measure anew with --fresh")
            return store
        except sqlite3.Error as error:
            store._connection.close()
            raise _unreadable(path, error) from None
        except TableUnreadable:
            store._connection.close()
            raise

    def close(self) -> None:
        # Folds the journal in: one file is left. Without room for that it stays beside, and the next open reads both.
        with contextlib.suppress(sqlite3.Error):
            self._connection.execute("PRAGMA journal_mode=DELETE")
        self._connection.close()

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # Measurements.

    def add(self, measurements: list[Measurement]) -> None:
        """Commits them together; a visit_id that is there already is dropped."""
        marks = ", ".join("?" * len(_COLUMNS))
        with self._guarded(), self._connection:
            self._connection.executemany(
                f"INSERT OR IGNORE INTO measurements ({', '.join(_COLUMNS)}) VALUES ({marks})",
                [astuple(measurement) for measurement in measurements],
            )

    def measurements(self, samples: bool = False) -> Iterator[Measurement]:
        """All of them in the order in which they came; raw samples only where asked for."""
        columns = ", ".join(_COLUMNS if samples else [c if c != "samples_ns" else "x''" for c in _COLUMNS])
        with self._guarded():
            rows = self._connection.execute(f"SELECT {columns} FROM measurements ORDER BY rowid").fetchall()
        for row in rows:
            values = dict(zip(_COLUMNS, row, strict=True))
            values["warm"], values["narrow"] = bool(values["warm"]), bool(values["narrow"])
            yield Measurement(**values)

    # Networks that were measured as a whole.

    def add_network(self, key: str, space: str, architecture: dict[str, Any], role: str) -> None:
        """A network that was ever tested stays a test: it never teaches a Calibration."""
        with self._guarded(), self._connection:
            self._connection.execute(
                "INSERT INTO networks VALUES (?, ?, ?, ?) "
                "ON CONFLICT (key) DO UPDATE SET role = 'test' WHERE excluded.role = 'test'",
                (key, space, json.dumps(architecture), role),
            )

    def networks(self) -> list[tuple[str, str, dict[str, Any], str]]:
        """(key, space, architecture, role)."""
        with self._guarded():
            rows = self._connection.execute(
                "SELECT key, space, architecture, role FROM networks ORDER BY rowid"
            ).fetchall()
        return [(key, space, json.loads(architecture), role) for key, space, architecture, role in rows]

    # Everything else, by name.

    def get(self, name: str) -> Any:
        with self._guarded():
            row = self._connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else json.loads(row[0])

    def put(self, name: str, value: Any) -> None:
        with self._guarded(), self._connection:
            self._connection.execute(
                "INSERT INTO meta VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                (name, json.dumps(value)),
            )

    def _guarded(self) -> "_Guard":
        return _Guard(self.path)


class _Guard:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, sqlite3.DatabaseError):
            raise _unreadable(self.path, error) from None


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    connection = sqlite3.connect(uri, uri=True, timeout=1.0, check_same_thread=False)
    try:
        # One writer: a second ofa-profile on the same table is told so, instead of both measuring everything.
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _unreadable(path: Path, error: BaseException) -> TableUnreadable:
    text = str(error)
    if "locked" in text:
        return TableUnreadable(f"{path} is in use by another command; wait until that one has ended")
    if "full" in text or "disk I/O" in text:
        return TableUnreadable(
            f"no room left for {path} ({text}); free some space and run the same command again, what was kept stays"
        )
    if "readonly" in text or "unable to open" in text:
        return TableUnreadable(f"cannot open {path} for writing ({text}); check its permissions and its folder's")
    if "not a database" in text:
        return TableUnreadable(f"{path} is not a latency table of ofa-profile; for YAML or CSV use ofa-table import")
    return TableUnreadable(f"{path} is damaged ({text}); restore a copy, or measure anew with --fresh")
