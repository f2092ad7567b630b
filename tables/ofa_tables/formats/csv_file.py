"""CSV: one row per entry.

Columns written: key, resolution, latency_ms, mean_ms, std_ms, spread, trials, samples, flags, failure. Columns read:
``key`` and one of ``latency_ms``, ``mean_ms``, ``mean``; optionally ``resolution``, ``std_ms`` (``std``, or ``var`` in
ms²), ``samples`` (``count``), ``failure``, and the flag ``simulated`` in ``flags``. A row without a resolution applies
to every resolution at which its key occurs. An imported row counts as one trial, because the file does not contain
single trials.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from ofa_tables.errors import FileError
from ofa_tables.formats.completeness import require_known, require_no_repeats, require_resolution, require_whole
from ofa_tables.formats.format import (
    Format,
    PublishedEntry,
    parse_count,
    parse_deviation,
    parse_latency_ms,
    read_text,
    require_few,
    short,
)
from ofa_tables.formats.frame import entries_frame
from ofa_tables.model.space import Space
from ofa_tables.store.measurement import SIMULATED
from ofa_tables.table import LatencyTable

Row = Mapping[str, str]

_MAX_COLUMNS = 100


def read(path: Path, space: Space) -> list[PublishedEntry]:
    """Read all rows. They must be complete at each resolution in the file, or at one if the file names none."""
    entries = read_rows(path)
    named = {entry.resolution_px for entry in entries} - {None}
    for px in sorted(filter(None, named)):
        require_resolution(path, space, px)
        require_whole(path, _at(entries, space, px), space, px)
    unnamed = [entry for entry in entries if entry.resolution_px is None]
    require_known(path, unnamed, {key for px in space.resolutions_px for key in space.keys(px)}, space)
    if not named:
        _require_one_whole(path, entries, space)
    return entries


def read_rows(path: Path) -> list[PublishedEntry]:
    """Read all rows, of any keys. Raises FileError if a row is not valid or is repeated."""
    entries = [_entry(path, line, row) for line, row in _rows(path)]
    require_no_repeats(path, entries)
    return entries


def write(table: LatencyTable, out: Path, space: Space | None) -> dict[Path, bytes]:
    return {out: entries_frame(table, space).to_csv(index=False, lineterminator="\n").encode()}


def _at(entries: Sequence[PublishedEntry], space: Space, resolution_px: int) -> list[PublishedEntry]:
    """Return the entries with a latency that apply at one resolution."""
    keys = set(space.keys(resolution_px))
    return [
        entry
        for entry in entries
        if entry.latency_ms is not None
        and (entry.resolution_px == resolution_px or (entry.resolution_px is None and entry.key in keys))
    ]


def _require_one_whole(path: Path, entries: Sequence[PublishedEntry], space: Space) -> None:
    given = {entry.key for entry in entries if entry.latency_ms is not None}
    fullest = max(space.resolutions_px, key=lambda px: len(given.intersection(space.keys(px))))
    require_whole(path, _at(entries, space, fullest), space, fullest)


def _entry(path: Path, line: int, row: Row) -> PublishedEntry:
    def place(column: str) -> str:
        return f"{path}, line {line}: {column} of {short(row['key'])}"

    if not row["key"]:
        raise FileError(f"{path}, line {line}: a row without a key; add the key or remove the row")
    resolution = parse_count(row["resolution"], place("resolution")) if row.get("resolution") else None
    samples = _first(row, "samples", "count")
    count = parse_count(samples[1], place(samples[0])) if samples else 0
    std_ms = parse_deviation(row, place)
    latency = _first(row, "latency_ms", "mean_ms", "mean")
    if latency is None:
        if not row.get("failure"):
            raise FileError(
                f"{path}, line {line}: {short(row['key'])} has neither a latency nor a failure; add one of them"
            )
        return PublishedEntry(row["key"], resolution, None, None, None, 0, line, row["failure"])
    latency_ms = parse_latency_ms(latency[1], place(latency[0]))
    mean = _first(row, "mean_ms", "mean") or latency
    mean_ms = parse_latency_ms(mean[1], place(mean[0]))
    simulated = SIMULATED in row.get("flags", "").split()
    return PublishedEntry(row["key"], resolution, latency_ms, mean_ms, std_ms, count, line, simulated=simulated)


def _first(row: Row, *names: str) -> tuple[str, str] | None:
    """Return (column, value) of the first of these columns that is not empty."""
    return next(((name, row[name]) for name in names if row.get(name)), None)


def _rows(path: Path) -> list[tuple[int, Row]]:
    """Return (line, row) of every row that is not blank, with all values as text. Raises FileError."""
    import pandas as pd  # takes half a second to import

    text = read_text(path)
    if text.lstrip()[:1] == "{":
        raise FileError(f"{path} is JSON, not CSV; use --format ofa-yaml, which also reads JSON")
    if text.partition("\n")[0].count(",") > _MAX_COLUMNS:
        raise FileError(f"{path} has more than {_MAX_COLUMNS} columns, the limit of a latency table; check the path")
    require_few(path, max(text.count("\n"), text.count("\r")))
    try:
        # With header=None, pandas neither drops surplus values nor uses them as an index.
        frame = pd.read_csv(
            io.StringIO(text), header=None, dtype=str, keep_default_na=False, skip_blank_lines=False
        ).fillna("")
    except pd.errors.EmptyDataError:
        raise FileError(f"{path} is empty; a table needs one row per entry") from None
    except (pd.errors.ParserError, ValueError) as error:
        raise FileError(f"{path} is not CSV ({' '.join(str(error).split())})") from None
    header, *rows = ([value.strip() for value in row] for row in frame.itertuples(index=False))
    _require_columns(path, header)
    return [(line, dict(zip(header, row, strict=True))) for line, row in enumerate(rows, start=2) if any(row)]


def _require_columns(path: Path, header: Sequence[str]) -> None:
    found = short(", ".join(header))
    if "key" not in header or not {"latency_ms", "mean_ms", "mean"}.intersection(header):
        raise FileError(f"{path} needs the columns key and latency_ms (or mean_ms); it has: {found}")
    repeated = [name for name in header if name and header.count(name) > 1]
    if repeated:
        raise FileError(f"{path} has the column {short(repeated[0])} twice; remove one of them")


FORMAT = Format("csv", read, write)
