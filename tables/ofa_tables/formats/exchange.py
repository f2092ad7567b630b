"""Import and export tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ofa_tables.errors import FileError, UsageError
from ofa_tables.formats import Format, PublishedEntry, format_names
from ofa_tables.identity import IMPORTED, Identity
from ofa_tables.model.latency_model import fullest_space
from ofa_tables.model.space import Space
from ofa_tables.store.files import write_files
from ofa_tables.table import LatencyTable


@dataclass(frozen=True)
class Exported:
    """The written files, and the space of their entries (None: all entries of the table)."""

    files: tuple[Path, ...]
    space: Space | None


def import_files(files: Sequence[Path], format: Format, space: Space, target: str, out: Path) -> None:
    """Create a table from files. A bad file creates no table. Raises FileError and TableError.

    Such files do not contain the fingerprint and the runtime: both are set to "imported". The runtime version is the
    name of the format, and the settings are the default ones.
    """
    entries = _read(files, format, space)
    identity = Identity(target, IMPORTED, IMPORTED, format.name)
    with LatencyTable.building(out, identity, {}) as table:
        table.store.put("imported_from", [str(file) for file in files])
        table.add([entry.measurement(format.name) for entry in entries])


def _read(files: Sequence[Path], format: Format, space: Space) -> list[PublishedEntry]:
    if format.read is None:
        raise UsageError(f"{format.name} can only be exported; import takes {', '.join(format_names('read'))}")
    found: dict[tuple[str, int | None], tuple[Path, PublishedEntry]] = {}
    for file in files:
        for entry in format.read(file, space):
            other, first = found.setdefault((entry.key, entry.resolution_px), (file, entry))
            if first.content != entry.content:
                raise FileError(f"{other} and {file} disagree on {entry.key} (line {entry.line}); import one of them")
    return [entry for _, entry in found.values()]


def export_table(
    table: LatencyTable, format: Format, out: Path, spaces: Sequence[Space], space: Space | None = None
) -> Exported:
    """Write the entries of a table: all files or none. Raises EntriesMissing and FileError.

    If the format needs a space and ``space`` is None, the fullest of ``spaces`` is used.
    """
    if format.write is None:
        raise UsageError(f"{format.name} can only be imported; export takes {', '.join(format_names('write'))}")
    if space is None and format.whole_space:
        space = fullest_space(table, spaces)
    contents = format.write(table, out, space)
    write_files(contents)
    return Exported(tuple(contents), space)
