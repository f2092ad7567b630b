"""The table file (SQLite): append-only measurements, crash-safe, one file when closed.

One process writes at a time. A committed measurement survives ``kill -9`` of the writer. A power failure may lose the
last few measurements, which are then repeated.
"""

import contextlib
import json
import os
import secrets
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import fields
from operator import attrgetter
from pathlib import Path
from typing import Any

from ofa_tables.errors import TableError
from ofa_tables.reading import parse_json
from ofa_tables.store import checksums
from ofa_tables.store.checksums import checksums_problem
from ofa_tables.store.contents import conditions_problem, measurements_problem, networks_problem, values_problem
from ofa_tables.store.failures import damaged, no_room, unreadable
from ofa_tables.store.header import ROLLBACK_JOURNAL, require_ours
from ofa_tables.store.measurement import Measurement
from ofa_tables.store.schema import (
    APPLICATION_ID,
    CONVERSIONS,
    FORMAT,
    SCHEMA,
    Deadline,
    harden,
    schema_problem,
)

# What sqlite3 raises. Text in the file, also in SQLite's messages about it, may be neither UTF-8 nor short.
_FAILURES = (sqlite3.Error, UnicodeError, MemoryError, OverflowError)

_COLUMNS = tuple(field.name for field in fields(Measurement))
_VALUES = attrgetter(*_COLUMNS)
_CONDITION, _WARM, _NARROW = (_COLUMNS.index(name) for name in ("condition", "warm", "narrow"))
_SAMPLES = _COLUMNS.index("samples_ns")
_PLACES = ", ".join("?" * len(_COLUMNS))


class Store:
    """An open table file. Every sqlite3 error is raised as a TableError that names the file and a remedy."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        self._deadline = Deadline(connection, path.stat().st_size if path.exists() else 0)

    @classmethod
    @contextlib.contextmanager
    def building(cls, path: Path) -> Iterator["Store"]:
        """Create a file and fill it inside the block. ``path`` appears only if the block succeeds.

        Raises TableError if ``path`` exists, or if the folder is missing, not writable or full.
        """
        if os.path.lexists(path):
            raise TableError(f"{path} already exists; choose another file, or remove it")
        draft = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.lut")
        try:
            with cls(path, _connect(draft, "rwc")) as store:
                store._lay_out()
                yield store
            if _journal(draft).exists():
                raise no_room(path, "its journal could not be merged")
            # SQLite would apply the journal of a removed table to the new one.
            _journal(path).unlink(missing_ok=True)
            os.rename(draft, path)
        except (sqlite3.Error, OSError) as error:
            raise TableError(
                f"cannot create {path}: {error}; check that the folder exists, is writable and not full"
            ) from None
        finally:
            for left_over in (draft, _journal(draft)):
                with contextlib.suppress(OSError):
                    left_over.unlink()

    @classmethod
    def open(cls, path: Path) -> "Store":
        """Open for writing. Raises TableUnreadable if the file is missing, truncated, newer, in use, or not a table."""
        require_ours(path)
        return cls._open(path, "rw")

    @classmethod
    def read(cls, path: Path) -> "Store":
        """Open for reading. The file does not change and its folder may be read-only. Raises as ``open`` does."""
        header = require_ours(path)
        # If the last writer did not close the file, SQLite needs write access to recover it.
        closed = header[18] == ROLLBACK_JOURNAL and not _journal(path).exists()
        return cls._open(path, "ro" if closed else "rw")

    @classmethod
    def _open(cls, path: Path, mode: str) -> "Store":
        try:
            store = cls(path, _connect(path, mode))
        except _FAILURES as error:
            raise unreadable(path, error) from None
        try:
            store._validate()
            with store._guarded():
                store._convert(in_place=mode != "ro")
        except BaseException:
            store.close()
            raise
        return store

    def _validate(self) -> None:
        """Check schema, pages, and values by name, in this order. Raises TableUnreadable. Reading checks the rows."""
        with self._guarded():
            problem = schema_problem(self._connection)
        if not problem:
            with self._guarded():
                found = self._connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            problem = "" if found == "ok" else str(found)
        if not problem:
            with self._guarded():
                problem = self._values_problem()
        if problem:
            raise damaged(self.path, problem)

    def _values_problem(self) -> str:
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if version < FORMAT:
            return values_problem(self._connection.execute("SELECT name, value FROM meta"))
        rows = self._connection.execute("SELECT name, value, checksum FROM meta").fetchall()
        return checksums_problem(rows) or values_problem(row[:-1] for row in rows)

    def _convert(self, in_place: bool) -> None:
        """Convert a table of an older format: the file, or a copy in memory if the file is read-only."""
        if self._connection.execute("PRAGMA user_version").fetchone()[0] == FORMAT:
            return
        if not in_place:
            copy = sqlite3.connect(":memory:", check_same_thread=False)
            self._connection.backup(copy)
            self._connection.close()
            self._connection = copy
            harden(copy)
            checksums.register(copy)
            self._deadline = Deadline(copy, self.path.stat().st_size)
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        signed = "".join(checksums.storing(table) + ";" for table in checksums.COVERED)
        self._connection.executescript(f"BEGIN; {CONVERSIONS[version]} {signed} PRAGMA user_version={FORMAT}; COMMIT;")

    def _lay_out(self) -> None:
        self._connection.executescript(
            f"BEGIN; PRAGMA application_id={APPLICATION_ID}; PRAGMA user_version={FORMAT}; {SCHEMA} COMMIT;"
        )

    def close(self) -> None:
        # Merges the journal, so that one file is left. On a full disk the journal stays, and the next open reads both.
        with contextlib.suppress(*_FAILURES):
            self._connection.execute("PRAGMA journal_mode=DELETE")
        self._connection.close()

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # Measurements.

    def add(self, measurements: list[Measurement]) -> None:
        """Commit measurements in one transaction. Those with a known trial_id are dropped.

        Raises TableError if a value could not be read again.
        """
        rows = [_VALUES(measurement) for measurement in measurements]
        self._require_storable(
            measurements_problem(_COLUMNS, rows) or conditions_problem((row[_CONDITION] for row in rows), {})
        )
        with self._guarded(), self._connection:
            self._connection.executemany(
                f"INSERT INTO measurements ({', '.join(_COLUMNS)}) VALUES ({_PLACES}) "
                "ON CONFLICT (trial_id) DO NOTHING",
                rows,
            )
            self._connection.executemany(checksums.storing("measurements", "trial_id = ?"), [(row[0],) for row in rows])

    def _require_storable(self, problem: str) -> None:
        if problem:
            raise TableError(f"cannot store this in {self.path}: {problem}; restart the agent, or update it")

    def measurements(self, samples: bool = False) -> Iterator[Measurement]:
        """Return all measurements in order of arrival, with raw samples only if ``samples`` is set."""
        columns = ", ".join(_COLUMNS if samples else [c if c != "samples_ns" else "x''" for c in _COLUMNS])
        with self._guarded():
            rows = self._connection.execute(f"SELECT {columns}, checksum FROM measurements ORDER BY rowid").fetchall()
        reported: dict[str, Mapping[str, Any]] = {}
        problem = checksums_problem([(*row[:_SAMPLES], *row[_SAMPLES + 1 :]) for row in rows])
        rows = [row[:-1] for row in rows]
        problem = problem or measurements_problem(_COLUMNS, rows)
        problem = problem or conditions_problem((row[_CONDITION] for row in rows), reported)
        if problem:
            raise damaged(self.path, problem)
        for row in rows:
            values = (*row[:_WARM], bool(row[_WARM]), bool(row[_NARROW]), *row[_NARROW + 1 :])
            measurement = Measurement(*values)
            yield measurement.with_reported(reported[measurement.condition])

    # Whole networks.

    def add_network(self, key: str, space: str, architecture: dict[str, Any], role: str) -> None:
        """Add a network, or update its role. The role ``test`` is permanent: a tested network never calibrates."""
        row = (key, space, json.dumps(architecture), role)
        self._require_storable(networks_problem([row]))
        with self._guarded(), self._connection:
            self._connection.execute(
                "INSERT INTO networks (key, space, architecture, role) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (key) DO UPDATE SET role = 'test' WHERE excluded.role = 'test'",
                row,
            )
            self._connection.execute(checksums.storing("networks", "key = ?"), (key,))

    def networks(self) -> list[tuple[str, str, dict[str, Any], str]]:
        """Return (key, space, architecture, role) of every network."""
        with self._guarded():
            rows = self._connection.execute(
                "SELECT key, space, architecture, role, checksum FROM networks ORDER BY rowid"
            ).fetchall()
        problem = checksums_problem(rows)
        rows = [row[:-1] for row in rows]
        problem = problem or networks_problem(rows)
        if problem:
            raise damaged(self.path, problem)
        return [(key, space, json.loads(architecture), role) for key, space, architecture, role in rows]

    # Other values, by name.

    def get(self, name: str) -> Any:
        with self._guarded():
            # "+" reads the table instead of its index, whose content is not checked.
            row = self._connection.execute("SELECT value FROM meta WHERE +name = ?", (name,)).fetchone()
        if row is None:
            return None
        try:
            return parse_json(row[0])
        except (ValueError, TypeError) as error:
            raise damaged(self.path, f"{name} is not valid JSON: {error}") from None

    def names(self, prefix: str) -> list[str]:
        with self._guarded():
            rows = self._connection.execute("SELECT name FROM meta ORDER BY name").fetchall()
        return [name for (name,) in rows if name.startswith(prefix)]

    def put(self, name: str, value: Any) -> None:
        """Store a value. Raises TableError if it could not be read again."""
        row = (name, json.dumps(value))
        self._require_storable(values_problem([row]))
        with self._guarded(), self._connection:
            self._connection.execute(
                "INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                row,
            )
            self._connection.execute(checksums.storing("meta", "name = ?"), (name,))

    def remove(self, name: str) -> None:
        with self._guarded(), self._connection:
            self._connection.execute("DELETE FROM meta WHERE name = ?", (name,))

    def _guarded(self) -> "_Guard":
        self._deadline.restart()
        return _Guard(self.path)


class _Guard:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, _FAILURES):
            raise unreadable(self.path, error) from None


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    connection = sqlite3.connect(uri, uri=True, timeout=1.0, check_same_thread=False)
    try:
        harden(connection)
        checksums.register(connection)
        if mode != "ro":
            # One writer: a second ofa-profile on the same table fails at once, instead of both measuring everything.
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
    except _FAILURES:
        connection.close()
        raise
    return connection


def _journal(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")
