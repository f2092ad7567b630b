"""Table files with wrong contents: cells, values in JSON, and schemas."""

import contextlib
import json
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
from mutations import VALUES, change_bytes, change_json

from ofa_nas.spaces import find_space
from ofa_tables.identity import Identity
from ofa_tables.model.calibration import Calibration
from ofa_tables.model.latency_model import write_calibration
from ofa_tables.store import checksums
from ofa_tables.store.measurement import Measurement, statistics
from ofa_tables.table import LatencyTable

TINY = find_space("tiny")

CELLS = (
    *(None, 0, 1, -1, 2, 2**31, 2**63 - 1, -(2**63), 1.5, -1.0, 1e308, -1e308, 5e-324, float("inf"), float("-inf")),
    *("", "x", "1", "nan", "ok", "{}", "[]", "\0", "é", "test", "network:x", b"", b"\xff\xfe", b"{}", b"12345678"),
    *("x" * 100_000, b"\0" * 1_000_000, "9" * 5000, "[" * 10_000),
)

PAGE = 4096  # bytes

# The endless ones are among the named attacks.
SCHEMAS = (
    "DROP TABLE networks; CREATE VIEW networks AS SELECT 'k' AS key, 's' AS space, '{}' AS architecture, 'r' AS role",
    "DROP TABLE meta; CREATE VIEW meta AS SELECT 'identity' AS name, '{}' AS value",
    "ALTER TABLE measurements RENAME TO m; CREATE VIEW measurements AS SELECT * FROM m",
    "ALTER TABLE measurements RENAME TO m; CREATE VIEW measurements AS SELECT * FROM m, (SELECT 1 UNION SELECT 2)",
    "CREATE TRIGGER t AFTER INSERT ON measurements BEGIN DELETE FROM measurements; END",
    "CREATE TRIGGER t AFTER UPDATE ON meta BEGIN DELETE FROM meta; END",
    "ALTER TABLE meta ADD COLUMN more TEXT AS (upper(value))",
    "ALTER TABLE measurements ADD COLUMN more TEXT DEFAULT 'x'",
    "ALTER TABLE measurements DROP COLUMN narrow",
    "ALTER TABLE measurements RENAME COLUMN status TO state",
    "ALTER TABLE networks DROP COLUMN role",
    "DROP TABLE networks",
    "DROP TABLE measurements",
    "DROP TABLE meta",
    "DROP TABLE meta; CREATE VIRTUAL TABLE meta USING fts5(name, value)",
    "CREATE TABLE more (x)",
    "CREATE INDEX i ON measurements (upper(key))",
    "DROP INDEX measurements_by_key",
    "DELETE FROM meta",
    "DELETE FROM meta WHERE name = 'identity'",
    "DELETE FROM measurements",
    "INSERT INTO meta (name, value) VALUES ('calibration/x', '{}')",
    "DROP TABLE networks; CREATE TABLE networks (key, space, architecture, role)",
    "DROP TABLE networks; CREATE TABLE networks (key TEXT PRIMARY KEY, space TEXT, architecture TEXT, role TEXT)"
    " WITHOUT ROWID",
    "ANALYZE",
    "PRAGMA user_version=3",
    "PRAGMA encoding='UTF-16'; VACUUM",
)


def make_table(path: Path) -> None:
    """Write a small table that has everything: entries, networks, conditions, a calibration."""
    rng = np.random.default_rng(0)
    condition = {"load": 0.1, "power_w": 4.5, "power_of": "VDD_IN", "reference_mean_ms": 1.0, "hot": False}
    with LatencyTable.create(path, Identity("bench", "f00d", "onnxruntime", "1.18.0"), {"chip": "synthetic"}) as table:
        table.add(
            [
                Measurement(
                    f"{key}-{number}",
                    key,
                    round=number,
                    condition=json.dumps(condition),
                    reference_before_ns=1_000_000,
                    reference_after_ns=1_000_000,
                    started_at=1.7e9,
                    received_at=1.7e9,
                    **statistics([round(1e5 * rng.uniform(0.5, 2)) for _ in range(3)]),
                )
                for key in TINY.keys(32)
                for number in range(2)
            ]
        )
        table.keep_conditions({"set": {"governor": "performance"}, "not_set": {}, "notes": ["n"], "warnings": ["w"]})
        network = TINY.decode(TINY.sample(1, np.random.default_rng(0), [32]))[0]
        table.store.add_network("network:1", "tiny", network.to_json(), "test")
        write_calibration(table, TINY, Calibration(1.1, 9, 0.1, 0.01, dict.fromkeys(TINY.keys(32)[:3], 0.01)))


def change_table(random_: random.Random, content: bytes, path: Path) -> None:
    """Write a mutated table to ``path``."""
    kind = random_.randrange(10)
    if kind <= 1:
        path.write_bytes(change_bytes(random_, content))
        return
    if kind == 2:  # in the schema, which is at the end of the first page
        page = bytearray(content[:PAGE])
        for _ in range(random_.choice((1, 2, 10))):
            page[random_.randrange(PAGE // 2, PAGE)] = random_.randrange(256)
        path.write_bytes(page + content[PAGE:])
        return
    path.write_bytes(content)
    if kind <= 5:
        untyped(path, lambda database: _change_cell(random_, database))
    elif kind <= 8:
        untyped(path, lambda database: _change_json_cell(random_, database))
    else:
        run_script(path, random_.choice(SCHEMAS))


def run_script(path: Path, script: str) -> None:
    database = sqlite3.connect(path, isolation_level=None)
    database.executescript(script)
    _sign(database)
    database.close()


def _sign(database: sqlite3.Connection) -> None:
    """Make the checksums fit, so that the attack reaches what is behind them. An attacker can do that."""
    if database.execute("SELECT 1 FROM sqlite_master WHERE type IN ('view', 'trigger')").fetchone():
        return
    checksums.register(database)
    for table in checksums.COVERED:
        with contextlib.suppress(sqlite3.Error):
            database.execute(checksums.storing(table))
    database.commit()


def untyped(path: Path, change: Callable[[sqlite3.Connection], None]) -> None:
    """Change contents while no column has a type or a constraint; the schema is as before afterwards."""
    database = sqlite3.connect(path)
    schema = database.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'").fetchall()
    columns = {name: [row[1] for row in database.execute(f"PRAGMA table_info({name})")] for name, _ in schema}
    _rewrite(database, {name: f"CREATE TABLE {name} ({', '.join(columns[name])})" for name, _ in schema})
    database.close()
    database = sqlite3.connect(path)
    # Constraints of primary keys have an index, which SQLite expects to find.
    change(database)
    database.commit()
    _sign(database)
    _rewrite(database, dict(schema))
    database.close()


def _rewrite(database: sqlite3.Connection, schema: dict[str, str]) -> None:
    database.execute("PRAGMA writable_schema=ON")
    for name, sql in schema.items():
        short = sql if "PRIMARY KEY" in sql else sql.replace("(", "(", 1)
        first = short.index("(") + 1
        keyed = short if "PRIMARY KEY" in short else short[:first] + short[first:].replace(",", " PRIMARY KEY,", 1)
        database.execute("UPDATE sqlite_master SET sql = ? WHERE name = ?", (keyed, name))
    database.commit()


def _cell(random_: random.Random, database: sqlite3.Connection) -> tuple[str, str, int]:
    table = random_.choice(("meta", "networks", "measurements", "measurements", "measurements"))
    column = random_.choice([row[1] for row in database.execute(f"PRAGMA table_info({table})")])
    rowid = random_.choice(database.execute(f"SELECT rowid FROM {table}").fetchall())[0]
    return table, column, rowid


def _change_cell(random_: random.Random, database: sqlite3.Connection) -> None:
    for _ in range(random_.choice((1, 1, 3))):
        table, column, rowid = _cell(random_, database)
        value = random_.choice(CELLS)
        everywhere = random_.random() < 0.1 and column not in ("name", "key", "trial_id")
        where = "" if everywhere and len(str(value)) < 100 else f"WHERE rowid = {rowid}"
        if isinstance(value, str) and random_.random() < 0.2:  # text that is not UTF-8
            database.execute(f"UPDATE OR IGNORE {table} SET {column} = CAST(x'fffe41' AS TEXT) {where}")
        else:
            database.execute(f"UPDATE OR IGNORE {table} SET {column} = ? {where}", (value,))


def _change_json_cell(random_: random.Random, database: sqlite3.Connection) -> None:
    table, column, name = random_.choice(
        (
            *(("meta", "value", name) for name in ("identity", "conditions", "calibration/tiny", "device", "id")),
            *(("meta", "value", name) for name in ("calibration/tiny", "identity", "created_at")),
            *((("networks", "architecture", ""), ("measurements", "condition", "")) * 2),
        )
    )
    where = f"name = '{name}'" if name else "1"
    rowid, text = random_.choice(database.execute(f"SELECT rowid, {column} FROM {table} WHERE {where}").fetchall())
    changed = change_json(random_, text)
    if random_.random() < 0.1:
        changed = json.dumps(random_.choice(VALUES))
    database.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (_utf8(changed), rowid))


def _utf8(text: str) -> str:
    return text.encode(errors="replace").decode()
