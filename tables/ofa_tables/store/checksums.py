"""A checksum in each row, so that a flipped bit on the disk is an error and not another latency.

SQLite checks the structure of a file, not the values in it.
"""

import sqlite3
import zlib
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from ofa_tables.store.measurement import Measurement

# The columns that each checksum covers. Raw samples are not read with the other values, and no latency depends on them.
COVERED = {
    "meta": ("name", "value"),
    "networks": ("key", "space", "architecture", "role"),
    "measurements": tuple(field.name for field in fields(Measurement) if field.name != "samples_ns"),
}


def checksum(*values: Any) -> int:
    """The CRC-32 of values as sqlite3 returns them."""
    return zlib.crc32(repr(values).encode("utf-8", "surrogatepass"))


def register(connection: sqlite3.Connection) -> None:
    connection.create_function("row_checksum", -1, checksum, deterministic=True)


def storing(table: str, where: str = "TRUE") -> str:
    """Return the statement that stores the checksums of rows, of the values that SQLite made of what was inserted."""
    return f"UPDATE {table} SET checksum = row_checksum({', '.join(COVERED[table])}) WHERE {where}"


def checksums_problem(rows: Sequence[Sequence[Any]]) -> str:
    """Compare the last value of each row with the checksum of the others. Say what is wrong; empty if nothing is."""
    for row in rows:
        if checksum(*row[:-1]) != row[-1]:
            return f"the checksum of the row {str(row[0])[:60]!r} is wrong"
    return ""
