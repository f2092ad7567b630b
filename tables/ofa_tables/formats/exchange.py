"""Import and export tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ofa_tables.errors import FileError, UsageError
from ofa_tables.formats import Figure, Format
from ofa_tables.model.latency_model import Space, fullest_space
from ofa_tables.store.files import write_files
from ofa_tables.table import IMPORTED, Identity, LatencyTable


@dataclass(frozen=True)
class Exported:
    files: tuple[Path, ...]
    space: Space | None


def import_files(files: Sequence[Path], format: Format, space: Space, target: str, out: Path) -> None:
    """A table of what the files hold; all of it, or where one file is bad nothing. Raises FileError and TableError.

    The device's fingerprint and the runtime are not in such files: both are "imported", the runtime's version is the
    format's name, and the Settings are the default ones.
    """
    figures = _read(files, format, space)
    identity = Identity(target, IMPORTED, IMPORTED, format.name)
    with LatencyTable.building(out, identity, {}) as table:
        table.store.put("imported_from", [str(file) for file in files])
        table.add([figure.measurement(format.name) for figure in figures])


def _read(files: Sequence[Path], format: Format, space: Space) -> list[Figure]:
    if format.read is None:
        raise UsageError(f"{format.name} is written, not read; import takes ofa-yaml or csv")
    found: dict[tuple[str, int | None], tuple[Path, Figure]] = {}
    for file in files:
        for figure in format.read(file, space):
            other, first = found.setdefault((figure.key, figure.resolution_px), (file, figure))
            if first.content != figure.content:
                raise FileError(f"{other} and {file} disagree on {figure.key} (line {figure.line}); import one of them")
    return [figure for _, figure in found.values()]


def export_table(
    table: LatencyTable, format: Format, out: Path, spaces: Sequence[Space], space: Space | None = None
) -> Exported:
    """Writes a table's figures, all files or none. Raises EntriesMissing, FileError.

    A format that holds one Space's entries gets ``space``, or else the one of ``spaces`` that the table has most of.
    """
    if format.write is None:
        raise UsageError(f"{format.name} is read, not written; export takes ofa-yaml, csv or parquet")
    if space is None and format.whole_space:
        space = fullest_space(table, spaces)
    contents = format.write(table, out, space)
    write_files(contents)
    return Exported(tuple(contents), space)
