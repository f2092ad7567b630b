"""Attacks that got through an earlier version, by name, each with the reader that it is for.

Each attack writes a file into a folder, and returns its path. The reader must refuse it with an error of this project.
"""

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from readers import ARCHITECTURE
from tables_of_attackers import make_table, run_script, untyped

Attack = Callable[[Path], Path]


def _table(change: Callable[[Path], None]) -> Attack:
    def attack(folder: Path) -> Path:
        path = folder / "t.lut"
        make_table(path)
        change(path)
        return path

    return attack


def _script(script: str) -> Attack:
    return _table(lambda path: run_script(path, script))


def _cell(table: str, column: str, value: object, where: str = "rowid = 1") -> Attack:
    update = f"UPDATE {table} SET {column} = ? WHERE {where}"
    return _table(lambda path: untyped(path, lambda database: database.execute(update, (value,)) and None))


def _value(name: str, value: object) -> Attack:
    text = value if isinstance(value, str) else json.dumps(value)
    return _cell("meta", "value", text, f"name = '{name}'")


def _schema_bytes(path: Path) -> None:
    content = path.read_bytes()
    content = content.replace(b"CREATE INDEX measurements_by_key", b"CREATE INDEY measurements_by_key")
    path.write_bytes(content.replace(b"measurements_by_key", b"\xff\xfe\xfdsurements_by_key"))


def _file(name: str, content: bytes | str) -> Attack:
    def attack(folder: Path) -> Path:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return folder / name

    return attack


def _pipe(name: str) -> Attack:
    def attack(folder: Path) -> Path:
        os.mkfifo(folder / name)
        return folder / name

    return attack


def _bomb(folder: Path) -> Path:
    """A zip file of 300 kB with 300 MiB of zeros."""
    archive = zipfile.ZipFile(folder / "bomb.npz", "w", zipfile.ZIP_DEFLATED)
    with archive, archive.open("0.weight.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (75 << 20, 1)})
        for _ in range(300):
            file.write(bytes(1 << 20))
    return folder / "bomb.npz"


def _many_entries(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "many.npz", "w") as archive:
        for number in range(3000):
            archive.writestr(f"{number}.bias.npy", b"")
    return folder / "many.npz"


def _shape(shape: str) -> Attack:
    def attack(folder: Path) -> Path:
        header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
        with zipfile.ZipFile(folder / "m.npz", "w") as archive:
            for name in ("0.weight", "0.bias"):
                archive.writestr(f"{name}.npy", b"\x93NUMPY\x01\x00\x76\x00" + header.encode() + bytes(80))
        return folder / "m.npz"

    return attack


DEEP = "[" * 10_000 + "]" * 10_000
LONG = "9" * 5000
PAIR = {"architecture": ARCHITECTURE, "accuracy": 0.5, "halves": [0.5, 0.5]}
HEADER = json.dumps({"space": "tiny", "images": 10}) + "\n"
IDENTITY = {"target": "t", "fingerprint": "f", "runtime": "r", "runtime_version": "1", "settings": {}}

# An endless query, which wrote temporary files until the disk was full.
ENDLESS = """
ALTER TABLE measurements RENAME TO m;
CREATE VIEW measurements AS WITH RECURSIVE endless(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM endless)
SELECT m.*, n AS rowid FROM m, endless;
"""

ATTACKS: dict[str, tuple[str, Attack]] = {
    "endless-view": ("table", _script(ENDLESS)),
    "view-in-place-of-a-table": (
        "table",
        _script("DROP TABLE networks; CREATE VIEW networks AS SELECT 'k' key, 's' space, '{}' architecture, 'r' role"),
    ),
    "trigger": ("table", _script("CREATE TRIGGER t AFTER INSERT ON meta BEGIN DELETE FROM measurements; END")),
    "generated-column": ("table", _script("ALTER TABLE meta ADD COLUMN more TEXT AS (upper(value))")),
    "missing-table": ("table", _script("DROP TABLE networks")),
    "schema-that-is-not-text": ("table", _table(_schema_bytes)),
    "latency-is-text": ("table", _cell("measurements", "median_ms", "fast")),
    "latency-is-bytes": ("table", _cell("measurements", "median_ms", b"\xff")),
    "latency-is-infinite": ("table", _cell("measurements", "median_ms", float("inf"))),
    "count-is-a-fraction": ("table", _cell("measurements", "count", 1.5)),
    "key-is-missing": ("table", _cell("measurements", "key", None)),
    "key-is-bytes": ("table", _cell("measurements", "key", b"\xff\xfe")),
    "samples-are-cut-off": ("table", _cell("measurements", "samples_ns", b"12345")),
    "time-after-the-last-year": ("table", _cell("measurements", "received_at", 1e300)),
    "condition-is-a-list": ("table", _cell("measurements", "condition", '["power_w"]')),
    "condition-is-cut-off": ("table", _cell("measurements", "condition", '{"power_w": ')),
    "condition-is-deep": ("table", _cell("measurements", "condition", DEEP)),
    "power-is-text": ("table", _cell("measurements", "condition", '{"power_w": "x"}')),
    "architecture-is-cut-off": ("table", _cell("networks", "architecture", '{"ks": ')),
    "name-is-missing": ("table", _cell("meta", "name", None, "name = 'id'")),
    "identity-is-cut-off": ("table", _value("identity", '{"target": ')),
    "identity-is-a-list": ("table", _value("identity", [])),
    "identity-without-settings": ("table", _value("identity", {**IDENTITY, "settings": None})),
    "identity-with-more": ("table", _value("identity", {**IDENTITY, "more": 1})),
    "conditions-are-deep": ("table", _value("conditions", DEEP)),
    "conditions-are-a-number": ("table", _value("conditions", {"set": 1})),
    "device-is-long": ("table", _value("device", f'{{"chip": {LONG}}}')),
    "device-is-half-a-character": ("table-commands", _value("device", '{"chip": "\\ud800"}')),
    "calibration-is-text": ("table", _value("calibration/tiny", {"scale": "x", "networks": 1})),
    "calibration-is-not-a-number": ("table", _value("calibration/tiny", '{"scale": NaN, "networks": 1}')),
    "calibration-of-unknown-fields": ("table", _value("calibration/tiny", {"scale": 1, "networks": 1, "x": 1})),
    "table-is-a-pipe": ("table", _pipe("t.lut")),
    "csv-is-a-pipe": ("csv", _pipe("t.csv")),
    "csv-of-a-million-rows": ("csv", _file("t.csv", "key,latency_ms\n" + "a,1\n" * 900_000)),
    "yaml-of-a-million-rows": ("yaml", _file("32_lookup_table.yaml", "a: {}\n" * 600_000)),
    "architecture-is-a-pipe": ("architecture", _pipe("one.json")),
    "architecture-is-deep": ("architecture", _file("one.json", f'{{"ks": {"[" * 900 + "]" * 900}}}')),
    "targets-are-deep": ("targets", _file("t.toml", f"[a]\nx = {DEEP}\n")),
    "targets-with-a-table-as-a-precision": ("targets", _file("t.toml", "[a]\nprecision = {}\n")),
    "targets-are-long": ("targets", _file("t.toml", f"[a]\nx = {LONG}\n")),
    "pairs-are-a-pipe": ("pairs", _pipe("p.jsonl")),
    "pairs-are-deep": ("pairs", _file("p.jsonl", HEADER + DEEP + "\n")),
    "pairs-are-long": ("pairs", _file("p.jsonl", HEADER + json.dumps({**PAIR, "accuracy": 10**400}) + "\n")),
    "pairs-with-wrong-images": ("pairs", _file("p.jsonl", '{"space": "tiny", "images": "x"}\n')),
    "npz-is-a-pipe": ("npz", _pipe("m.npz")),
    "npz-is-a-bomb": ("npz", _bomb),
    "npz-of-many-arrays": ("npz", _many_entries),
    "npz-with-true-as-a-size": ("npz", _shape("(True, 4)")),
    "npz-with-a-huge-shape": ("npz", _shape("(10000000000, 10)")),
}
