"""The schema of the table file, and what a file must pass before anything in it is evaluated.

A prepared file can have a view in the place of a table, which runs without end, or a trigger, which changes what is
written. Only the statements of SCHEMA are accepted.
"""

import re
import sqlite3
import time

APPLICATION_ID = 0x0FA1A7E0
FORMAT = 5
OLDEST_FORMAT = 3  # older tables lack values that the estimates need

SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL, checksum INTEGER NOT NULL DEFAULT 0);
CREATE TABLE networks (
    key TEXT PRIMARY KEY, space TEXT NOT NULL, architecture TEXT NOT NULL, role TEXT NOT NULL,
    checksum INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE measurements (
    trial_id TEXT PRIMARY KEY, key TEXT NOT NULL, status TEXT NOT NULL, error TEXT NOT NULL, round INTEGER NOT NULL,
    resolution_px INTEGER, count INTEGER NOT NULL, median_ms REAL, mean_ms REAL, std_ms REAL, samples_ns BLOB NOT NULL,
    warmup_runs INTEGER NOT NULL, first_ns INTEGER NOT NULL, timed_ns INTEGER NOT NULL, load_ns INTEGER NOT NULL,
    warm INTEGER NOT NULL, narrow INTEGER NOT NULL,
    reference_before_ns INTEGER NOT NULL, reference_after_ns INTEGER NOT NULL, condition TEXT NOT NULL,
    started_at REAL NOT NULL, received_at REAL NOT NULL, checksum INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX measurements_by_key ON measurements (key);
"""

# Format 4 has no checksums. Format 3 differs from format 4 in names only.
_CHECKSUM = "checksum INTEGER NOT NULL DEFAULT 0"
_FROM_3 = """
ALTER TABLE measurements RENAME COLUMN visit_id TO trial_id;
UPDATE networks SET role = 'profiled' WHERE role = 'carrier';
"""
_FROM_4 = "".join(f"ALTER TABLE {table} ADD COLUMN {_CHECKSUM};" for table in ("meta", "networks", "measurements"))
CONVERSIONS = {3: _FROM_3 + _FROM_4, 4: _FROM_4}
_SCHEMA_4 = re.sub(rf",\s*{_CHECKSUM}", "", SCHEMA)
_SCHEMAS = {3: _SCHEMA_4.replace("trial_id", "visit_id"), 4: _SCHEMA_4, FORMAT: SCHEMA}

MOST_BYTES = 64 << 20  # of one value; the samples of a trial have 8 bytes each
_LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: MOST_BYTES,
    sqlite3.SQLITE_LIMIT_COLUMN: 100,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 100,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 2,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
}
# Longest time of one statement: 60 s and, for slow disks, a second per MiB of the file.
_SECONDS, _SECONDS_PER_BYTE = 60.0, 1 / (1 << 20)
_STEPS = 100_000  # of SQLite's virtual machine, between two looks at the clock


class Deadline:
    """Ends statements of a connection that take too long. ``restart`` is called before each."""

    def __init__(self, connection: sqlite3.Connection, file_bytes: int) -> None:
        self.seconds = _SECONDS + file_bytes * _SECONDS_PER_BYTE
        self.restart()
        connection.set_progress_handler(self._is_over, _STEPS)

    def restart(self) -> None:
        self._until = time.monotonic() + self.seconds

    def _is_over(self) -> bool:
        return time.monotonic() > self._until


def harden(connection: sqlite3.Connection) -> None:
    """Trust nothing in the file: no functions in the schema, sizes checked, memory limited, no temporary files."""
    for limit, value in _LIMITS.items():
        connection.setlimit(limit, value)
    for pragma in ("trusted_schema=OFF", "cell_size_check=ON", "mmap_size=0", "temp_store=MEMORY"):
        connection.execute(f"PRAGMA {pragma}")


def schema_problem(connection: sqlite3.Connection) -> str:
    """Say how the schema differs from that of its format; empty if it does not. Evaluates no part of the schema."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version not in range(OLDEST_FORMAT, FORMAT + 1):
        return f"it has table format {version}"
    wanted = _statements(_SCHEMAS[version])
    for kind, name, sql in connection.execute("SELECT type, name, sql FROM sqlite_master"):
        is_automatic = kind == "index" and sql is None and str(name).startswith("sqlite_autoindex_")
        if is_automatic:
            continue
        statement = _normal(sql) if isinstance(sql, str) else ""
        if statement not in wanted:
            return f"it contains the {kind} {str(name)[:60]!r}, which is not that of ofa-profile"
        wanted.remove(statement)
    return f"it lacks: {min(wanted)[:60]}" if wanted else ""


def _statements(script: str) -> set[str]:
    return {_normal(statement) for statement in script.split(";") if statement.strip()}


def _normal(sql: str) -> str:
    """Return the words and signs, without the quotes that SQLite adds when a column is renamed."""
    return " ".join(re.findall(r'\w+|[^\w\s"]', sql))
